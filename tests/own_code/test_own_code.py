"""docs/your-own-code.md, followed with the project in this folder in a fresh copy of the checkout, without a stack."""

import os
import sys
from pathlib import Path

import pytest

from tests.own_code.conftest import DAYS, commands_of, put_project, shell
from tests.stack import copy_checkout

LOCAL = [command for command in commands_of("## 3. Try it without Docker") if command != "make dev"]  # see test_make.py


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout with the project in it and its packages installed."""
    own = tmp_path_factory.mktemp("own")
    copy_checkout(own)
    shell("git init --quiet && git add --all", own)
    shell("git -c user.name=test -c user.email=test@example.com commit --quiet --message=Start", own)
    put_project(own)
    (own / ".venv").symlink_to(sys.prefix)
    os.utime(own / "requirements/dev.txt", (0, 0))  # that `make` installs packages has a test of its own
    shell(".venv/bin/pip install --quiet --no-deps --target packages duckdb~=2.0 pandas~=3.1", own)
    return own


def test_the_definitions_load(own: Path, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").touch()
    shell(
        ".venv/bin/dagster definitions validate --module-name deployable_dagster.code_location",
        own,
        DAGSTER_HOME=str(tmp_path),
        CODE_LOCATION_MODULE="pipeline",
        PYTHONPATH=f"{own}/packages:{own}/deploy:{own}",
    )


def test_the_commands_without_docker_work(own: Path) -> None:
    local, launch = LOCAL
    assert "data/orders.txt: 2 orders on 1 days" in shell(local, own, PYTHONPATH=f"{own}/packages")
    assert "'orders_are_sound' on 'orders' passed" in shell(launch, own, PYTHONPATH=f"{own}/packages")
    assert (own / f"data/orders/{DAYS[0]}.parquet").exists()
