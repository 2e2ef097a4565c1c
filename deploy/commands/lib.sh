# shellcheck shell=bash
# What the commands in this folder share. Bash 3.2 and tools without GNU extensions are enough, as on macOS.
set -euo pipefail

fail() {
  echo "$*" >&2
  exit 1
}

# Check the machine and the settings; set what the other functions use.
prepare() {
  deploy/commands/preflight
  project=$(docker compose config | sed -n 's/^name: //p')
  postgres=$(docker compose config --images postgres | sed -n 1p)
  IMAGE_TAG=$(checked_out)
  export IMAGE_TAG
}

postgres_major() { # of the image that is built next
  sed -n 's/^FROM postgres:\([0-9]*\).*/\1/p' deploy/postgres/Dockerfile
}

# Print the files that an image can get and git does not track, or all of them without git, each with its checksum.
untracked() {
  set -e # which a subshell forgets
  local copied path
  copied=$(sed -n 's/^!//p' .dockerignore)
  # shellcheck disable=SC2086 # several paths
  if git rev-parse HEAD >/dev/null 2>&1; then
    git ls-files -z --others --exclude-standard -- $copied
  else
    for path in docker-compose.yml Dockerfile.* deploy $copied; do [ ! -e "$path" ] || printf '%s\0' "$path"; done
  fi | xargs -0 sh -c \
    '[ $# = 0 ] || find "$@" ! -path "*/.git/*" ! -path "*/__pycache__/*" -type f -exec cksum {} +' sh | LC_ALL=C sort
}

# Print what is checked out, as an image's tag: the commit and, if files differ from it, a digest of the differences.
# It writes nothing to .git: after `sudo make up`, git still works without sudo.
checked_out() {
  set -e
  local commit changes
  if ! commit=$(git rev-parse --short=12 HEAD 2>&1); then
    echo "The images are tagged with a checksum of the files, because git finds no commit: ${commit%%$'\n'*}" >&2
    changes=$(untracked | cksum)
    echo "files-${changes%% *}"
    return
  fi
  changes=$(git -c diff.autoRefreshIndex=false diff --no-ext-diff --no-textconv --full-index HEAD -- . && untracked)
  [ -z "$changes" ] || commit=$commit-dirty-$(git hash-object --stdin <<<"$changes" | cut -c 1-8)
  echo "$commit"
}

require_running() {
  local service
  for service in postgres user_code dagit; do
    [ -n "$(docker compose ps --quiet --status running "$service")" ] ||
      fail "$service of $project is not running: start it with make up"
  done
}

containers() { # of a service, or of all; without those of runs
  docker ps --all --quiet --no-trunc --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service${1:+=$1}" --filter label=com.docker.compose.oneoff=False
}

# Never as Postgres' superuser: a run may have put a function of its own behind any table's name.
sql() {
  docker compose exec --no-TTY postgres psql --username=dagster --no-align --tuples-only --command="$1"
}

sha256() {
  if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

check_definitions() {
  echo "Checking that the definitions in user_code:$IMAGE_TAG load"
  # That `dg` supersedes this command, and that there is no dagster.yaml, is no news for an operator.
  docker compose run --rm --no-deps --no-TTY --env DAGSTER_HOME=/tmp --env PYTHONWARNINGS=ignore user_code \
    sh -c 'touch /tmp/dagster.yaml; exec dagster definitions validate --module-name deployable_dagster.code_location' ||
    fail "Refused: the definitions do not load; the error is above. Nothing was replaced."
}

# The gate makes runs like user_code, so it judges a container of it that does nothing.
check_runs() {
  local server refused=
  server=$(docker compose run --detach --no-deps --entrypoint true user_code)
  server=$(docker inspect --format '{{.Id}}' "$server")
  docker compose run --rm --no-deps --no-TTY --env CHECK_ONLY="$server" gate || refused=yes
  docker rm --force --volumes "$server" >/dev/null
  [ -z "$refused" ] || fail "Refused: runs would get more than code may have; see above. Nothing was replaced."
}

# Print the last log lines of every service that is neither healthy nor done.
explain() {
  local container state
  for container in $(containers ''); do
    state=$(docker inspect --format \
      '{{.State.Status}}{{with .State.Health}} {{.Status}}{{end}} {{.State.ExitCode}} {{.Name}}' "$container")
    case $state in "running healthy "* | "exited 0 "*) continue ;; esac
    echo "The last log lines of ${state##*/}:"
    docker logs --tail 20 "$container"
  done >&2
}

# Give the images of the running services, as `roll_back` needs it, one tag: the one of user_code, which may have been
# deployed last and alone. Set `old` to it; to nothing if there is nothing to go back to.
keep_old() {
  local kind container
  container=$(containers user_code | sed -n 1p)
  old=
  [ -n "$container" ] || return 0
  old=$(docker inspect --format '{{.Config.Image}}' "$container")
  old=${old##*:}
  for kind in dagit:dagster gate:gate edge:edge; do
    container=$(containers "${kind%:*}")
    [ -z "$container" ] || docker tag "$(docker inspect --format '{{.Image}}' "$container")" "$project-${kind#*:}:$old"
  done
}

roll_back() {
  echo "The new version does not become healthy; the reason is above. Rolling back." >&2
  export IMAGE_TAG=$old
  docker compose config --services | grep -vxE 'postgres|migrate' |
    xargs docker compose up --detach --no-deps --no-build --wait
}

# Later commands without IMAGE_TAG, such as a plain `docker compose up`, must use the same images.
tag_latest() {
  local image
  for image in $(docker compose config --images); do
    [[ $image != "$project"-*":$IMAGE_TAG" ]] || docker tag "$image" "${image%:*}:latest"
  done
}

# Remove old images of this project, except the newest five of each kind and those of a container or an unfinished run.
prune() {
  local kind image used
  used=$(docker ps --all --no-trunc --format '{{.Image}}') || return
  used+=$(sql "SELECT run_body FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')") || return
  for kind in dagster user_code gate edge; do
    docker images --format '{{.Repository}}:{{.Tag}}' "$project-$kind" | sed '/:latest$/d; /<none>/d' | tail -n +6 |
      while read -r image; do
        grep -qwF "$image" <<<"$used" || docker rmi "$image" >/dev/null
      done
  done
}

require_volume() {
  docker volume inspect "${project}_$1" >/dev/null 2>&1 || fail "$project has no volume $1 yet: start it with make up"
}

# Run a script on a volume, as root or as user $run_as, in a container that has nothing else. It keeps no log, which would
# be a second copy of what it prints.
with_volume() { # the volume, the script, its arguments
  local volume=$1 script=$2
  shift 2
  docker run --rm --interactive --user "${run_as:-0}" --network none --log-driver none --read-only \
    --security-opt no-new-privileges --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER \
    --cap-add SETGID --cap-add SETUID \
    --volume "${project}_$volume:/volume" --workdir /volume --entrypoint bash "$postgres" -euc "$script" bash "$@"
}

fact() { # what the manifest of the backup says of $1
  sed -n "s/^$1 //p" "${backup:?}/manifest"
}
