"""What every test on the Docker engine needs: the engine, and a browser."""

import os
import shutil
from collections.abc import Iterator

import docker
import pytest
from playwright.sync_api import Browser, sync_playwright

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
def browser() -> Iterator[Browser]:
    """Yield Chromium: the system's if there is one, or else Playwright's own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield browser
        browser.close()
