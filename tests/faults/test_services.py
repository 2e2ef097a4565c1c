"""A service that is killed or hangs is restarted automatically, and no run is lost."""

import time
from collections.abc import Callable

import pytest

from tests.faults.faulty import ALL, Faulty, Ledger
from tests.stack import now


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
def test_a_killed_or_hung_service_is_restarted(
    signal: str, services: list[str], faulty: Faulty, ledger: Ledger, report: Callable[..., None]
) -> None:
    time.sleep(15)  # to have some runs in progress
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
    assert restarted == set(services), "a healthy service was restarted"


def pause(faulty: Faulty, seconds: int) -> None:
    """Pause Postgres."""
    faulty.compose("pause", "postgres")
    time.sleep(seconds)
    faulty.compose("unpause", "postgres")


def restart(faulty: Faulty, seconds: int) -> None:
    """Restart Postgres again and again, while runs write."""
    for _ in range(0, seconds, 10):
        faulty.compose("restart", "postgres")
        time.sleep(10)


def exhaust(faulty: Faulty, seconds: int) -> None:
    """Take every connection of Postgres, and each that becomes free."""
    script = """if True:
        import sys, time, psycopg2
        until, taken = time.monotonic() + float(sys.argv[1]), []
        while time.monotonic() < until:
            try:
                taken.append(psycopg2.connect("service=dagster"))
            except psycopg2.OperationalError:
                time.sleep(0.02)
        print(len(taken))"""
    taken = int(faulty.run_in("dagit", "python", "-c", script, str(seconds)))
    assert taken > int(faulty.sql("SHOW max_connections")) / 2


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("fault", "seconds"), [(pause, 30), (pause, 180), (restart, 30), (exhaust, 45)])
def test_nothing_else_is_restarted_while_the_database_is_down(
    fault: Callable[[Faulty, int], None], seconds: int, faulty: Faulty, ledger: Ledger, report: Callable[..., None]
) -> None:
    before = faulty.restarts()
    time.sleep(15)
    began = now()
    fault(faulty, seconds)
    returned = time.monotonic()
    faulty.wait_until_healthy()
    recovered = time.monotonic() - returned
    ledger.outage(began)
    time.sleep(40)  # long enough for a late heartbeat to be noticed
    counts = ledger.settle()
    report(f"postgres: {fault.__name__} for {seconds} s", 0, recovered, **counts)
    assert (counts["lost"], counts["doubled"], counts["failed"]) == (0, 0, 0), counts
    # The engine resets the count of a container that is restarted by hand, as postgres was.
    after = faulty.restarts()
    assert {service for service in ALL if after[service] > before[service]} == set()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_tick_without_user_code_fails_with_a_reason_and_the_next_one_runs(
    faulty: Faulty, ledger: Ledger, report: Callable[..., None]
) -> None:
    time.sleep((50 - time.time()) % 60)
    began = now()
    faulty.compose("stop", "user_code")
    stopped = time.monotonic()
    failed = f"SELECT tick_body FROM job_ticks WHERE status = 'FAILURE' AND timestamp > '{began}'"
    said = faulty.wait_for("the tick without user_code", lambda: faulty.sql(failed), timeout=30)
    detected = time.monotonic() - stopped
    assert "Unable to reach the user code server for schedule every_minute" in said
    faulty.compose("start", "user_code")
    faulty.wait_until_healthy()
    recovered = time.monotonic() - stopped
    ledger.outage(began)
    time.sleep((15 - time.time()) % 60)  # past the next minute
    counts = ledger.settle()
    report("user_code down at a tick", detected, recovered, **counts)
    # Dagster retries a tick at the next full minute, unless that minute has a tick of its own.
    assert (counts["lost"], counts["doubled"], counts["failed"], counts["missed"]) == (0, 0, 0, 1), counts


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_second_daemon_waits_until_the_first_is_removed(
    faulty: Faulty, ledger: Ledger, report: Callable[..., None]
) -> None:
    daemon = "SELECT daemon_id FROM daemon_heartbeats WHERE daemon_type = 'SCHEDULER'"
    first, at_work = faulty.container("dagster-daemon"), faulty.sql(daemon)
    scale = ["--scale", "dagster-daemon=2", "dagster-daemon"]
    faulty.compose("up", "--detach", "--no-deps", "--no-build", "--no-recreate", "--wait", *scale)
    for _ in range(13):  # over two minutes
        time.sleep(10)
        assert faulty.sql(daemon) == at_work
    began = now()
    first.remove(force=True)
    removed = time.monotonic()
    faulty.wait_for("the second daemon", lambda: faulty.sql(daemon), lambda seen: seen != at_work)
    recovered = time.monotonic() - removed
    faulty.wait_until_healthy()
    ledger.outage(began)
    counts = ledger.settle()
    report("two daemons, and the first removed", 0, recovered, **counts)
    assert (counts["lost"], counts["doubled"], counts["failed"], counts["refused"]) == (0, 0, 0, 0), counts
    ticks = (
        f"SELECT count(*) - count(DISTINCT (selector_id, timestamp)) FROM job_ticks WHERE timestamp > '{ledger.began}'"
    )
    assert faulty.sql(ticks) == "0", "a tick was evaluated twice"
