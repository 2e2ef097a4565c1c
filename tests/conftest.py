"""What tests on the Docker engine share: the engine, two copies of the stack, a published one, a browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.edge.published import Published
from tests.stack import Deployment, deployed

CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# These run the job of the example: with your code in pipeline/ they are left out.
OF_THE_EXAMPLE = [
    *("commands/test_backup.py", "commands/test_deploy.py", "commands/test_upgrade.py"),
    *(
        "deployable_dagster/test_retention.py",
        "deployment",
        "edge",
        "faults",
        "own_code",
        "pipeline",
        "test_bench.py",
        "test_docs.py",
    ),
]
code = Path(__file__).parents[1] / "pipeline/__init__.py"
collect_ignore = [] if code.exists() and "clean_string_job" in code.read_text() else OF_THE_EXAMPLE


def pytest_report_header() -> list[str]:
    """Say what is left out."""
    return [f"pipeline/ is not the example, so left out: {', '.join(collect_ignore)}"] if collect_ignore else []


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Skip without a Docker engine; in CI, fail."""
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        reason = f"no Docker engine answers: {error}"
        if os.getenv("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def deployment(docker_engine: None) -> Iterator[Deployment]:
    """Yield the stack that nothing disturbs: its schedule makes a run every minute from its start to its end."""
    with deployed() as deployment:
        yield deployment


@pytest.fixture(scope="session")
def neighbour(deployment: Deployment) -> Iterator[Deployment]:
    """Yield a second stack beside the first, which tests may stop, hang and restart."""
    with deployed() as neighbour:
        yield neighbour


@pytest.fixture(scope="session")
def edge(docker_engine: None) -> Iterator[Published]:
    """Yield a stack that is published, with logins."""
    edge = Published()
    with deployed(edge):
        yield edge


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Yield Chromium: the system's if there is one, or else Playwright's own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield browser
        browser.close()
