"""A stack to break, the ledger of each fault, and the table at the end."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.faulty import Faulty, Ledger
from tests.stack import deployed

TABLE = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def faulty(docker_engine: None) -> Iterator[Faulty]:
    """Yield a stack to break."""
    faulty = Faulty()
    with deployed(faulty):
        yield faulty


@pytest.fixture
def ledger(faulty: Faulty) -> Iterator[Ledger]:
    """Yield a ledger; close it even if the test fails."""
    ledger = Ledger(faulty)
    yield ledger
    ledger.close()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that adds a line to the table: the fault, seconds until detected and recovered, counts."""

    def report(fault: str, detected: float, recovered: float, **counts: int) -> None:
        line = f"{fault:60} {detected:5.0f} s {recovered:6.0f} s  " + ", ".join(f"{n} {w}" for w, n in counts.items())
        request.config.stash.setdefault(TABLE, []).append(line)

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if lines := config.stash.get(TABLE, []):
        terminalreporter.section("faults: detected after, recovered after, runs")
        for line in lines:
            terminalreporter.line(line)
