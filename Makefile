PYTHON ?= python3
BIN := .venv/bin

# What runs without Docker keeps its records, in SQLite files, here.
LOCAL := DAGSTER_HOME=$(CURDIR)/local

.PHONY: help local dev up deploy upgrade backup restore down logs user test test-faults soak check audit bench format lock

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

local: .venv/installed local/dagster.yaml ## Run the job once without Docker, and show what it wrote
	$(LOCAL) $(BIN)/dagster job execute -m pipeline -j clean_string_job
	@echo && for text in $$(ls -td data/*/ | head -n 1)*.txt; do echo "$$text: $$(cat $$text)"; done
	@echo && find data local -type f | sort

dev: .venv/installed local/dagster.yaml ## Dagit and the schedule without Docker, on http://localhost:3000
	$(LOCAL) $(BIN)/dagster dev -m pipeline --port $${DAGIT_PORT:-3000}

up: ## Build, start, wait until healthy, print the address
	@deploy/commands/up

deploy: ## Replace your code under load; what does not load is refused
	@deploy/commands/deploy

upgrade: ## Back up, then replace everything by what is checked out; put back the old if that fails
	@deploy/commands/upgrade

backup: ## Copy the database, data, storage and the secret into backups/, while runs go on
	@deploy/commands/backup

restore: ## Replace everything by a backup: make restore BACKUP=backups/…
	@deploy/commands/restore "$$BACKUP"

down: ## Stop and remove every container, runs in flight too; volumes stay
	docker compose stop dagster-daemon gate # which launch and remove run containers meanwhile
	docker compose down --remove-orphans

logs: ## Follow the logs of all services
	docker compose logs --follow --tail 50

user: ## Name who may log in where Dagit is published: make user NAME=alice [ROLE=viewer]
	@docker compose --profile edge run --rm --no-deps $$([ -t 0 ] || echo --no-TTY) edge user "$$NAME" "$$ROLE"
	@[ -z "$$(docker compose --profile edge ps --quiet --status running edge)" ] || \
		docker compose --profile edge exec --no-TTY edge caddy reload --config /etc/caddy/Caddyfile

test: .venv/installed ## All tests; those of the deployment need a Docker engine
	@command -v chromium >/dev/null || $(BIN)/playwright install chromium
	$(BIN)/pytest

test-faults: .venv/installed ## Break everything that can break, and account for every run: some hours
	$(BIN)/pytest tests/faults tests/commands -m "not soak"

soak: .venv/installed ## Launch, tick and break at random for HOURS=1.5; SEED=… repeats the faults of another soak
	$(BIN)/pytest tests/faults/test_soak.py -m soak -s

check: .venv/installed ## Lint, format, types; Dockerfiles, compose file, workflows, shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
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

COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --upgrade \
	--custom-compile-command 'make lock'

lock: .venv/installed ## Compile pyproject.toml into requirements/, with the newest versions it allows
	$(COMPILE) --python-version 3.11 --group dev --output-file requirements/dev.txt
	for image in dagster gate user_code; do $(COMPILE) --python-version 3.13 --group $$image \
		--constraint requirements/dev.txt --output-file requirements/$$image.txt || exit; done

local/dagster.yaml:
	@mkdir -p local
	@printf 'telemetry:\n  enabled: false\n' >$@

.venv/installed: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it: make PYTHON=python3.13")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements/dev.txt
	@touch $@
