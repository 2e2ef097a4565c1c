"""What code may expect of its container, with jobs that are not the example's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import Deployment, deployed

TICKS = """
    query($of: SensorSelector!) { sensorOrError(sensorSelector: $of) {
        ... on Sensor { sensorState { ticks { status skipReason logEvents { events { message } } } } } } }"""


class FirstWeek(Deployment):
    """A stack with other code than the example's, little memory for runs, and one core."""

    def __init__(self) -> None:
        """Set what a user might."""
        super().__init__()
        self.environment |= {"RUN_MEMORY": "400m", "RUN_CPU_PERCENT": "100", "SENSOR_TIMEOUT": "300"}

    def build(self) -> None:
        """Build the images; add the code to the one of user_code."""
        super().build()
        image = f"{self.project}-user_code"
        path = str(Path(__file__).parent / "image")
        self.engine.images.build(path=path, tag=image, buildargs={"IMAGE": image}, rm=True)

    def ticks(self, sensor: str) -> list[dict[str, object]]:
        """Return the sensor's ticks, newest first."""
        of = {"repositoryLocationName": "pipeline", "repositoryName": "__repository__", "sensorName": sensor}
        return list(self.query(TICKS, of=of)["sensorState"]["ticks"])


@pytest.fixture(scope="module")
def first_week(docker_engine: None) -> Iterator[FirstWeek]:
    """Yield a stack with this code."""
    with deployed(first_week := FirstWeek()):
        yield first_week


JOBS = [
    *("fork", "spawn", "threads", "home", "beside_the_code", "run_from_tmp", "spill", "cycles", "count_cores"),
    *("connect_elsewhere", "fork_multiprocess", "count_cores_multiprocess"),
]


@pytest.fixture(scope="module")
def run_ids(first_week: FirstWeek) -> dict[str, str]:
    """Launch every job at once; return their runs' ids."""
    return {job: first_week.launch(job=f"{job}_job") for job in JOBS}


@pytest.mark.parametrize("job", JOBS)
def test_it_succeeds(job: str, run_ids: dict[str, str], first_week: FirstWeek) -> None:
    status = first_week.finish(run_ids[job], timeout=240)
    events = first_week.events(run_ids[job])
    assert status == "SUCCESS", events
    if job in ("fork", "threads", "fork_multiprocess"):
        assert sum("worker" in str(event.get("message")) for event in events) == 200


def test_a_sensor_sees_what_runs_see_and_its_log_is_shown(first_week: FirstWeek) -> None:
    first_week.run_in("user_code", "touch", "/data/inbox.csv")
    found = first_week.wait_for(
        "a tick that sees the file",
        lambda: [tick for tick in first_week.ticks("watch") if "inbox.csv" in str(tick["skipReason"])],
    )
    assert "hello from the sensor" in str(found[0]["logEvents"])


@pytest.mark.timeout(400)
def test_a_slow_sensor_holds_nothing_up(first_week: FirstWeek) -> None:
    daemon = first_week.container("dagster-daemon")
    first_week.wait_for(
        "the end of a slow tick", lambda: str(first_week.ticks("slow")), lambda seen: "slow, but done" in seen, 300
    )
    assert len(first_week.ticks("watch")) > 5
    assert first_week.container("dagster-daemon").attrs["RestartCount"] == daemon.attrs["RestartCount"] == 0
