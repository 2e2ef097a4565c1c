"""What the schedule makes up for when the daemon was away."""

import time
from datetime import UTC, datetime

import pytest

from tests.faults.faulty import MINUTE, Faulty


@pytest.mark.long
@pytest.mark.timeout(9000)
@pytest.mark.parametrize("minutes", [1, 5, 120])
def test_the_last_missed_tick_is_made_up_for(minutes: int, faulty: Faulty) -> None:
    time.sleep(60 - time.time() % 60 + 15)  # a quarter past the minute, whose own tick is over
    stopped = datetime.now(UTC).replace(tzinfo=None, second=0, microsecond=0)
    faulty.compose("stop", "dagster-daemon")
    time.sleep(60 * minutes)
    faulty.compose("start", "dagster-daemon")
    missed = [str(stopped + n * MINUTE) for n in range(1, minutes + 1)]
    query = f"SELECT value FROM run_tags WHERE key = 'date' AND value > '{stopped}' ORDER BY value"
    dates = faulty.wait_for(
        "the next minute's own run",
        lambda: faulty.sql(query).splitlines(),
        lambda dates: str(stopped + (minutes + 1) * MINUTE) in dates,
        timeout=120,
    )
    assert [date for date in dates if date in missed] == missed[-1:]
