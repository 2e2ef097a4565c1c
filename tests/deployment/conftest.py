"""Two copies of the stack, for all tests of a session."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.deployment.deployment import Deployment, deployed


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


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield a page without memory of those before it."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(30_000)
    yield page
    page.close()
