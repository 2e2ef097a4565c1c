"""A service that is killed, or hangs, comes back by itself, and no run is lost by it."""

import time
from collections.abc import Callable

import pytest

from tests.faults.faulty import ALL, Faulty, Ledger, now


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("signal", "services"),
    [
        ("KILL", ALL),
        ("STOP", [service for service in ALL if service != "postgres"]),
        ("STOP", ["postgres"]),
        *(pytest.param("KILL", [service], marks=pytest.mark.long) for service in ALL),
        *(pytest.param("STOP", [service], marks=pytest.mark.long) for service in ALL if service != "postgres"),
    ],
    ids=str,
)
def test_it_is_restarted(
    signal: str, services: list[str], faulty: Faulty, ledger: Ledger, report: Callable[..., None]
) -> None:
    time.sleep(15)  # in which runs are launched
    before = faulty.restarts()
    injected, began = time.monotonic(), now()
    for service in services:
        faulty.signal(service, signal)
    faulty.wait_until_restarted(services, before)
    detected = time.monotonic() - injected
    faulty.wait_until_healthy()
    recovered = time.monotonic() - injected
    ledger.outage(began)
    time.sleep(15)
    counts = ledger.settle()
    report(f"SIG{signal} {', '.join(services)}", detected, recovered, **counts)
    assert (counts["lost"], counts["doubled"], counts["failed"]) == (0, 0, 0), counts
    restarted = {service for service, count in faulty.restarts().items() if count > before[service]}
    assert restarted == set(services), "a service was restarted that had done nothing wrong"


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds", [30, 180])
def test_nothing_is_restarted_while_the_database_is_paused(
    seconds: int, faulty: Faulty, ledger: Ledger, report: Callable[..., None]
) -> None:
    before = faulty.restarts()
    time.sleep(15)
    began = now()
    faulty.compose("pause", "postgres")
    time.sleep(seconds)
    faulty.compose("unpause", "postgres")
    returned = time.monotonic()
    faulty.wait_until_healthy()
    recovered = time.monotonic() - returned
    ledger.outage(began)
    time.sleep(40)  # in which a late heartbeat would be noticed
    counts = ledger.settle()
    report(f"postgres paused for {seconds} s", 0, recovered, **counts)
    assert (counts["lost"], counts["doubled"], counts["failed"]) == (0, 0, 0), counts
    assert faulty.restarts() == before
