"""Two copies of the stack, for all tests of a session, and a browser."""

import os
import shutil
from collections.abc import Iterator

import docker
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.deployment.deployment import Deployment, deployed

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


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Skip without a Docker engine; in CI, fail."""
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        reason = f"no Docker engine answers: {error}"
        if os.getenv("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def deployment(engine: None) -> Iterator[Deployment]:
    """Yield the stack that nothing disturbs: its schedule makes a run every minute from its start to its end."""
    with deployed() as deployment:
        yield deployment


@pytest.fixture(scope="session")
def neighbour(deployment: Deployment) -> Iterator[Deployment]:
    """Yield a second stack beside the first, which tests may stop, hang and restart."""
    with deployed() as neighbour:
        yield neighbour


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Yield Chromium: the system's if there is one, or else Playwright's own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield a page without memory of those before it."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(30_000)
    yield page
    page.close()
