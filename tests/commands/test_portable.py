"""The operator's scripts on other machines: macOS's Bash 3.2, POSIX tools alone, odd checkouts and umasks."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.stack import ROOT

SCRIPTS = [path for path in (ROOT / "deploy/commands").iterdir() if path.suffix in {"", ".sh"} and path.is_file()]

# The options that POSIX, macOS and busybox all have, of each tool that the scripts may use.
TOOLS = {
    "awk": "F",
    "basename": "",
    "cat": "",
    "cksum": "",
    "cp": "R",
    "cut": "cdf",
    "date": "u",
    "df": "Pk",
    "dirname": "",
    "du": "sh",
    "env": "",
    "find": None,  # its expressions look like options
    "git": None,
    "grep": "EFqsvwx",
    "id": "nu",
    "mkdir": "p",
    "mktemp": "d",
    "mv": "",
    "rm": "rf",
    "sed": "n",
    "sh": None,
    "sort": "knt",
    "sync": "",
    "tail": "n",
    "tar": None,
    "touch": "",
    "uname": "r",
    "wc": "w",
    "xargs": "0",
}

REFUSE = """for option; do
  case $option in
    --) break ;;
    --* | -*[!{allowed}]*) echo "{tool} of macOS or busybox may not have $option" >&2; exit 64 ;;
    -*) ;;
    *) break ;;
  esac
done
"""

# What Bash 3.2 does not know, and what it takes for an error under `set -u`.
NEWER = {
    "declare -A, -g, -n": r"\b(declare|local|typeset) -\w*[Agnlu]",
    "mapfile": r"\b(mapfile|readarray|coproc)\b",
    "${name,,}": r"\$\{\w+(,|\^|@[A-Za-z]\})",
    "|& and &>>": r"\|&|&>>|;;?&",
    "[[ -v name ]]": r"\[\[? -[vR] ",
    "wait -n": r"\bwait -\w*[np]",
    "negative lengths": r"\$\{\w+:[^}]*: ?-",
    "arrays, which may be empty": r"\$\{\w+\[[@*]\]",
    "%(format)T": r"%\([^)]*\)T",
    "shopt": r"\bshopt\b",
    "{fd}>": r"\{\w+\}[<>]",
}


@pytest.fixture(scope="module")
def posix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory for PATH: each tool refuses an option that is not POSIX's, and none else is there."""
    directory = tmp_path_factory.mktemp("posix")
    for tool, options in TOOLS.items():
        real = shutil.which("mawk" if tool == "awk" else tool)
        assert real, f"this machine has no {tool}"
        real += " --posix" if tool == "sed" else ""
        (directory / tool).write_text(
            "#!/bin/sh\n"
            + ("" if options is None else REFUSE.format(tool=tool, allowed=f"{options}-"))
            + f'exec {real} "$@"\n'
        )
        (directory / tool).chmod(0o755)
    (directory / "bash").symlink_to(shutil.which("bash") or "")
    (directory / "shasum").write_text(
        f'#!/bin/sh\nshift 2; exec {shutil.which("sha256sum")} "$@"\n'
    )  # macOS has only this one
    (directory / "shasum").chmod(0o755)
    return directory


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone of this project and of the scripts as they are, in a directory whose name has a space."""
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    shutil.copytree(ROOT / "deploy/commands", clone / "deploy/commands", dirs_exist_ok=True)
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "Change")
    return clone


def git(clone: Path, *args: str) -> str:
    """Return what git prints."""
    options = ("user.name=test", "user.email=test@example.com", "maintenance.auto=false", "gc.auto=0")
    command = ["git", *(word for option in options for word in ("-c", option)), *args]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True).stdout.strip()


def run(clone: Path, command: str, path: str, docker: str = "exit 1") -> subprocess.CompletedProcess[str]:
    """Run a command in the clone with only `path` in PATH, and with a `docker` whose body is given in shell."""
    tools = clone.parent / "docker-only"
    tools.mkdir(exist_ok=True)
    (tools / "docker").write_text(f"#!/bin/sh\n{docker}\n")
    (tools / "docker").chmod(0o755)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=clone,
        env={"PATH": f"{tools}:{path}", "HOME": str(clone.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_image_is_pulled_that_is_built_here() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {name for name, service in services.items() if service.get("pull_policy") != "never"} == set()


def tag(clone: Path, path: str = os.environ["PATH"]) -> str:
    """Return the tag of the images that the clone's files make."""
    done = run(clone, ". deploy/commands/lib.sh; checked_out", path)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_bash_3_2_is_enough(script: Path) -> None:
    text = re.sub(r"^\s*#.*$", "", script.read_text(), flags=re.MULTILINE)
    assert {what for what, pattern in NEWER.items() if re.search(pattern, text)} == set()


def test_the_tag_is_the_commit_and_what_differs_from_it(clone: Path, posix: Path) -> None:
    commit = git(clone, "rev-parse", "--short=12", "HEAD")
    seen = [commit]

    def expect(same_as: str | None = None) -> None:
        now = tag(clone, str(posix))
        if same_as is None:
            assert re.fullmatch(rf"{commit}-dirty-[0-9a-f]{{8}}", now)
            assert now not in seen
        else:
            assert now == same_as
        seen.append(now)

    expect(commit)
    (clone / "README.md").write_text("changed")
    expect()
    (clone / 'pipeline/a "new" é.py').write_text("x = 1")
    expect()
    (clone / 'pipeline/a "new" é.py').write_text("x = 2")
    expect()
    (clone / "pipeline/nested").mkdir()
    git(clone / "pipeline/nested", "init", "--quiet")  # it has no commit
    (clone / "pipeline/nested/code.py").write_text("x = 1")
    expect()
    (clone / "pipeline/nested/code.py").write_text("x = 2")
    expect()
    shutil.rmtree(clone / "pipeline/nested")
    (clone / 'pipeline/a "new" é.py').unlink()
    git(clone, "checkout", "--quiet", "README.md")
    expect(commit)
    (clone / "notes.txt").write_text("no image gets this")
    expect(commit)


def test_the_tag_leaves_git_alone_however_large_the_files(clone: Path) -> None:
    def everything() -> dict[Path, tuple[int, float]]:
        files = filter(Path.is_file, (clone / ".git").rglob("*"))
        return {path: (path.stat().st_size, path.stat().st_mtime) for path in files}

    with (clone / "pipeline/large.bin").open("wb") as large:
        large.truncate(200_000_000)
    (clone / "README.md").touch()  # git would like to note that it has not changed
    before = everything()
    assert "-dirty-" in tag(clone)
    assert everything() == before


@pytest.mark.parametrize("away", ["git", ".git", "commit"])
def test_without_git_the_tag_is_a_checksum_of_the_files(away: str, clone: Path, posix: Path, tmp_path: Path) -> None:
    path = posix
    if away == "git":
        shutil.copytree(posix, path := tmp_path / "without-git", symlinks=True)
        (path / "git").unlink()
    else:
        shutil.rmtree(clone / ".git")
    if away == "commit":
        git(clone, "init", "--quiet")
    first = tag(clone, str(path))
    assert re.fullmatch(r"files-\d+", first)
    assert tag(clone, str(path)) == first
    (clone / "pipeline/new.py").write_text("x = 1")
    assert tag(clone, str(path)) not in {first, ""}


def test_prune_keeps_five_and_what_is_in_use(clone: Path, posix: Path) -> None:
    docker = """
case $* in
  "ps "*) echo x-gate:3 ;;
  "compose exec"*) echo '{"tags": {"dagster/image": "x-gate:8"}}' ;;
  "images "*" x-gate") printf 'x-gate:%s\n' latest 1 2 3 4 5 6 7 8 9 '<none>' ;;
  "rmi "*) echo "$2" >>removed ;;
esac"""
    done = run(clone, "project=x; . deploy/commands/lib.sh; prune", str(posix), docker)
    assert (done.returncode, done.stderr) == (0, "")
    assert (clone / "removed").read_text().split() == ["x-gate:6", "x-gate:7", "x-gate:9"]


DOCKER = """
case $* in
  "compose config") cat <<'END' ;;
name: x
MAX_CONCURRENT_RUNS: "4"
RETENTION_DAYS: 30
DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS: "60"
deployable-dagster.run.memory: 2g
deployable-dagster.run.pids: "512"
deployable-dagster.run.cpu-percent: "200"
deployable-dagster.run.memory-max: 2g
deployable-dagster.run.pids-max: "512"
deployable-dagster.run.cpu-percent-max: "200"
END
  "compose config --images"*) echo postgres:17 ;;
  *"SELECT 'runs "*) echo runs 3 ;;
  *"SHOW server_version"*) echo '17.5 (Debian 17.5-1)' ;;
  *"dagster --version") echo dagster, version 1.13.27 ;;
  *) echo 1 ;;
esac"""


def test_backup_and_restore_need_no_gnu_tools(clone: Path, posix: Path) -> None:
    done = run(clone, "deploy/commands/backup backups/one", str(posix), DOCKER)
    assert (done.returncode, done.stderr) == (0, "")
    assert (clone / "backups/one/manifest").read_text().split("\n")[2:4] == ["dagster 1.13.27", "postgres 17.5"]
    restore = "deploy/commands/restore backups/one"
    done = run(clone, restore, str(posix), DOCKER)
    assert done.stderr.startswith("Refused: no terminal"), done.stderr
    (clone / "requirements/dagster.txt").write_text("dagster==1.9.30 --hash=x\n")
    done = run(clone, restore, str(posix), DOCKER)
    assert done.stderr.startswith("Refused: backups/one needs Dagster 1.13.27, and this checkout has 1.9.30"), (
        done.stderr
    )
    (clone / "backups/one/manifest").write_text("dagster 1.0\n")
    assert "Refused: backups/one is damaged" in run(clone, restore, str(posix), DOCKER).stderr


@pytest.mark.parametrize(
    ("dockerfile", "command"),
    [
        ("Dockerfile.user_code", "python -c 'import pipeline, deployable_dagster.code_location'"),
        ("Dockerfile.dagster", "python -c 'import deployable_dagster.launcher' && cat *.yaml"),
        ("deploy/gate/Dockerfile", "python -c 'import gate.server'"),
        ("deploy/edge/Dockerfile", "cat /etc/caddy/Caddyfile"),
    ],
)
def test_containers_can_read_the_files_of_a_checkout_with_umask_077(
    dockerfile: str, command: str, docker_engine: None, tmp_path: Path
) -> None:
    for name in git(ROOT, "ls-files").splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name, follow_symlinks=False)
    for path in {*tmp_path.rglob("*")} - {*(tmp_path / "requirements").iterdir()}:  # so that the build cache holds
        path.chmod(0o700 if path.is_dir() or os.access(path, os.X_OK) else 0o600)
    image = f"dd-test-umask-{tmp_path.name.lower()}"
    subprocess.run(["docker", "build", "--quiet", "--tag", image, "--file", dockerfile, "."], cwd=tmp_path, check=True)
    try:
        run = [
            "docker",
            "run",
            "--rm",
            "--cap-drop",
            "ALL",
            "--network",
            "none",
            "--entrypoint",
            "sh",
            image,
            "-ec",
            command,
        ]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["docker", "rmi", "--force", image], check=True, stdout=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
