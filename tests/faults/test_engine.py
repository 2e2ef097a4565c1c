"""The Docker engine restarts: services come back, and runs in progress are retried."""

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import docker
import pytest
import requests

from tests.faults.faulty import Faulty, Ledger
from tests.stack import now


@pytest.fixture(scope="session")
def restart() -> str:
    """Return the command that restarts the engine; skip if none is given, and in CI, fail."""
    if command := os.getenv("RESTART_ENGINE"):
        return command
    reason = "it stops every container of this engine; RESTART_ENGINE='systemctl restart docker' allows it"
    if os.getenv("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_runs_survive_a_restart_of_the_engine_or_are_retried(
    restart: str, faulty: Faulty, ledger: Ledger, report: Callable[..., None]
) -> None:
    def answers() -> bool:
        with suppress(docker.errors.DockerException, requests.RequestException):
            return bool(faulty.engine.ping())
        return False

    run_id = faulty.hang()
    ledger.launched.append(run_id)
    time.sleep(15)
    began = now()
    subprocess.run(restart, shell=True, check=True)
    faulty.wait_for("the engine", answers)
    returned = time.time()
    faulty.wait_until_healthy()
    recovered = time.time() - returned
    ledger.outage(began)
    assert faulty.finish(run_id) == "FAILURE"
    # It may have had time to record that it was stopped.
    detected = max(0, float(faulty.sql(f"SELECT end_time FROM runs WHERE run_id = '{run_id}'")) - returned)
    child = faulty.wait_for("the retry", lambda: faulty.tags(run_id).get("dagster/auto_retry_run_id", ""))
    assert faulty.finish(child) == "SUCCESS"
    counts = ledger.settle()
    report("the engine restarted", detected, recovered, **counts)
    assert (counts["lost"], counts["doubled"], counts["failed"]) == (0, 0, 0), counts
    assert detected < 60
