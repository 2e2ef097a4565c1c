"""A run whose container dies or hangs fails within a minute, and its page says why."""

import time
from collections.abc import Callable

import pytest

from tests.faults.faulty import Faulty, Ledger

NO_RETRY = {"dagster/max_retries": "0"}


@pytest.fixture(scope="module")
def run_ids(faulty: Faulty) -> dict[str, str]:
    """Launch the jobs that go wrong, all at once; return the runs' ids."""
    tags = dict.fromkeys(("out_of_memory", "vanished", "stillborn", "stuck", "broken"), NO_RETRY)
    tags |= {name: NO_RETRY | {"dagster/max_runtime": "10"} for name in ("endless", "deaf")}
    return {job: faulty.launch(job=job, tags=tags[job]) for job in tags}


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("out_of_memory", ["RUN_MEMORY", "Exit code of its container: 137", "about to take all memory"]),
        ("vanished", ["Exit code of its container: 0"]),
        pytest.param(
            "stillborn",
            ["180 seconds to start", "Exit code of its container: 3", "the entry point is broken"],
            marks=pytest.mark.long,
        ),
        pytest.param(
            "stuck",
            ["180 seconds to start", "start_timeout_seconds in dagster.yaml", "the entry point waits"],
            marks=pytest.mark.long,
        ),
        ("broken", ["a_package_that_is_missing"]),
        ("endless", ["maximum runtime of 10 seconds"]),
        ("deaf", ["maximum runtime of 10 seconds"]),
    ],
)
def test_the_page_of_a_failed_run_says_why(
    job: str, said: list[str], run_ids: dict[str, str], faulty: Faulty, report: Callable[..., None]
) -> None:
    limit = 200 if "180 seconds to start" in said else 60
    # A run that exceeds its maximum runtime records that it was canceled, and the daemon then that it failed.
    faulty.wait_for(f"the failure of {job}", lambda: faulty.status(run_ids[job]), "FAILURE".__eq__, limit + 40)
    assert faulty.finish(run_ids[job]) == "FAILURE"
    events = str(faulty.events(run_ids[job]))
    assert [words for words in said if words not in events] == [], events
    took = faulty.seconds(run_ids[job])
    report(f"a run: {job}", took, took)
    assert took < limit


@pytest.mark.timeout(300)
def test_a_run_whose_container_is_killed_is_retried_once(
    faulty: Faulty, ledger: Ledger, report: Callable[..., None]
) -> None:
    run_id = faulty.hang()
    (container,) = faulty.containers(f"dagster/run_id={run_id}")
    container.kill()
    killed = time.monotonic()
    assert faulty.finish(run_id) == "FAILURE"
    detected = time.monotonic() - killed
    assert "It was killed (SIGKILL)" in faulty.failure(run_id)
    child = faulty.wait_for("the retry", lambda: faulty.tags(run_id).get("dagster/auto_retry_run_id", ""))
    assert faulty.finish(child) == "SUCCESS"
    recovered = time.monotonic() - killed
    ledger.launched.append(run_id)
    counts = ledger.settle()
    report("SIGKILL of a run's container", detected, recovered, **counts)
    assert (counts["lost"], counts["doubled"], counts["failed"], counts["retried"]) == (0, 0, 0, 1), counts
    assert detected < 60
    ledger.wait_until_removed()


@pytest.mark.timeout(300)
def test_a_run_survives_half_a_minute_without_the_database_or_is_retried(
    faulty: Faulty, ledger: Ledger, report: Callable[..., None]
) -> None:
    run_id = faulty.hang()
    (container,) = faulty.containers(f"dagster/run_id={run_id}")
    network = faulty.engine.networks.get(f"{faulty.project}_runs")
    network.disconnect(container)
    cut = time.monotonic()
    faulty.run_in("dagit", "cat", f"/data/{run_id}/.sent_clean.txt.partial")  # it waits for a reader
    time.sleep(30)
    network.connect(container)
    faulty.finish(run_id)
    ended = time.monotonic() - cut
    counts = ledger.settle()
    last = faulty.tags(run_id).get("dagster/auto_retry_run_id", run_id)
    assert faulty.status(last) == "SUCCESS"
    report("a run's container cut off from Postgres for 30 s", ended, ended, **counts)
    assert (counts["lost"], counts["doubled"], counts["failed"]) == (0, 0, 0), counts


def test_a_run_whose_op_raised_is_not_retried(faulty: Faulty) -> None:
    config = {"ops": {"normalize_string": {"config": {"norm": "lower", "force_error": True}}}}
    run_id = faulty.launch(config)
    assert faulty.finish(run_id) == "FAILURE"
    faulty.wait_for("the decision", lambda: faulty.tags(run_id).get("dagster/will_retry"), lambda will: will == "false")


def test_a_missing_image_is_named(faulty: Faulty, report: Callable[..., None]) -> None:
    name = f"{faulty.project}-user_code"
    image = faulty.engine.images.get(name)
    image.tag(f"{faulty.project}-aside")
    faulty.engine.images.remove(name)
    began = time.monotonic()
    try:
        run_id = faulty.launch(tags=NO_RETRY)
        assert faulty.finish(run_id) == "FAILURE"
    finally:
        image.tag(name)
    took = time.monotonic() - began
    report("an image that no longer exists", took, took)
    assert f"the engine has no image {name}:latest: build it" in str(faulty.events(run_id))
