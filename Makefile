PYTHON ?= python3
BIN := .venv/bin

# Without Docker, Dagster keeps its records here, in SQLite files.
LOCAL := DAGSTER_HOME="$(CURDIR)/local" VIRTUAL_ENV="$(CURDIR)/.venv"

.PHONY: help local dev up deploy upgrade backup restore put get down logs user test test-faults soak check audit bench format lock update

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

local: .venv/installed local/dagster.yaml ## Run a job without Docker, and show the files it wrote; JOB=… names one
	@$(LOCAL) deploy/commands/local "$$JOB"

dev: .venv/installed local/dagster.yaml ## Dagit and schedules without Docker, on http://localhost:3000
	$(LOCAL) $(BIN)/dg dev --no-check-yaml --port $(or $(DAGIT_PORT),$(shell sed -n 's/^ *DAGIT_PORT=[" ]*\([0-9]*\).*/\1/p' .env 2>/dev/null),3000)

up: ## Build, start, wait until healthy, print the address
	@deploy/commands/up

deploy: ## Replace your code while runs are in progress; code that does not load is rejected
	@deploy/commands/deploy

upgrade: ## Back up, then replace every service by the version checked out; roll back on failure
	@deploy/commands/upgrade

backup: ## Copy the database, data, storage and the secret into backups/, while runs are in progress
	@deploy/commands/backup

restore: ## Replace everything by a backup: make restore BACKUP=backups/…
	@deploy/commands/restore "$$BACKUP"

put: ## Copy a file or directory to the volume data, where runs see it: make put FROM=… TO=…
	@deploy/commands/put "$$FROM" $(if $(TO),"$$TO")

get: ## Copy a file or directory from the volume data: make get FROM=… TO=…
	@deploy/commands/get "$$FROM" $(if $(TO),"$$TO")

down: ## Stop and remove every container, those of runs too; volumes stay
	docker compose stop dagster-daemon gate # they launch and remove run containers
	docker compose down --remove-orphans

logs: ## Follow the logs of all services
	docker compose logs --follow --tail 50

user: ## Add a login for the published Dagit, or change its password: make user NAME=alice [ROLE=viewer]
	@docker compose --profile edge run --rm --no-deps $$([ -t 0 ] || echo --no-TTY) edge user "$$NAME" "$$ROLE"
	@[ -z "$$(docker compose --profile edge ps --quiet --status running edge)" ] || \
		docker compose --profile edge exec --no-TTY edge caddy reload --config /etc/caddy/Caddyfile

test: .venv/installed ## Run all tests but the long ones; those of the deployment need a Docker engine
	@command -v chromium >/dev/null || $(BIN)/playwright install chromium
	$(BIN)/pytest

test-faults: .venv/installed ## Inject every fault, and account for every run: takes hours
	$(BIN)/pytest tests/faults tests/commands tests/own_code -m "not soak"

soak: .venv/installed ## Inject faults at random for HOURS=1.5; SEED=… repeats those of an earlier soak
	$(BIN)/pytest -m soak -s

check: .venv/installed local/dagster.yaml ## Lint, format, types, definitions; Dockerfiles, compose file, workflows, shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(LOCAL) $(BIN)/dg check defs --no-check-yaml
	$(BIN)/hadolint Dockerfile.* deploy/*/Dockerfile .ci/stand-ins/*.Dockerfile
	$(BIN)/yamllint --strict .
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/shellcheck $$(grep -slE '^#!.*sh$$|^# shellcheck shell=' .ci/* .ci/*/* deploy/*/*)

audit: .venv/installed ## Audit what runs, what the images are made of, and the locked dependencies
	@$(BIN)/python deploy/commands/audit.py

bench: .venv/installed ## Measure against Dagster's documented deployment; ROWS=launch,… for a part, QUICK=1 for a verdict
	@$(BIN)/python -m bench $(if $(ROWS),--rows $(ROWS)) $(if $(QUICK),--quick)

format: .venv/installed ## Format the Python code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/installed ## Lock the packages that pyproject.toml asks for into requirements/; other versions stay
	@deploy/commands/lock

update: .venv/installed ## Lock the newest version of every package that pyproject.toml allows
	@deploy/commands/lock --upgrade

local/dagster.yaml:
	@mkdir -p data local
	@printf 'telemetry:\n  enabled: false\n' >$@

.venv/installed: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it: make PYTHON=python3.13")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements/dev.txt
	@touch $@
