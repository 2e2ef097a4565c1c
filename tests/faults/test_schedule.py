"""Which missed ticks the schedule catches up on after the daemon was down."""

import time

import pytest

from tests.faults.faulty import Faulty
from tests.stack import MINUTE, now

# Moves the daemon's records of its schedules into the past, as if it had been down for longer.
AGE = """
    UPDATE job_ticks SET timestamp = timestamp - interval '{seconds} s', tick_body = jsonb_set(
        tick_body::jsonb, '{{timestamp}}', to_jsonb((tick_body::jsonb->>'timestamp')::numeric - {seconds}));
    UPDATE instigators SET instigator_body = jsonb_set(
        instigator_body::jsonb, '{{job_specific_data,last_iteration_timestamp}}', to_jsonb(
        (instigator_body::jsonb#>>'{{job_specific_data,last_iteration_timestamp}}')::numeric - {seconds}));
    UPDATE jobs SET job_body = jsonb_set(
        job_body::jsonb, '{{job_specific_data,last_iteration_timestamp}}', to_jsonb(
        (job_body::jsonb#>>'{{job_specific_data,last_iteration_timestamp}}')::numeric - {seconds}))
"""


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("minutes", "before"), [(1, 0), (5, 0), (1, 119)])
def test_the_last_missed_tick_is_caught_up_on(minutes: int, before: int, faulty: Faulty) -> None:
    time.sleep(60 - time.time() % 60 + 15)  # when this minute's own tick is over
    stopped = now().replace(second=0, microsecond=0)
    faulty.compose("stop", "dagster-daemon")
    if before:
        faulty.sql(AGE.format(seconds=60 * before))
    time.sleep(60 * minutes)
    faulty.compose("start", "dagster-daemon")
    last, next_ = (str(stopped + n * MINUTE) for n in (minutes, minutes + 1))
    since = stopped - before * MINUTE
    ticks = (
        f"SELECT timestamp FROM job_ticks WHERE timestamp > '{since}' AND tick_body LIKE '%every_minute%' ORDER BY 1"
    )
    made = faulty.wait_for(
        "the next minute's own tick", lambda: faulty.sql(ticks).splitlines(), lambda made: next_ in made, timeout=120
    )
    assert made == [last, next_]
    runs = f"SELECT value FROM run_tags WHERE key = 'date' AND value > '{stopped}' ORDER BY value"
    assert faulty.wait_for("its run", lambda: faulty.sql(runs).splitlines(), lambda dates: next_ in dates) == made
