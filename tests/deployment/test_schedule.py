"""The schedule: one run a minute, and none while it is switched off in Dagit."""

import re
from datetime import datetime

import pytest
from playwright.sync_api import Page, expect

from tests.stack import JOB, MINUTE, Deployment, now


def scheduled(deployment: Deployment) -> list[datetime]:
    """Return the tag `date` of each run that the schedule launched, in order."""
    dates = deployment.sql("SELECT value FROM run_tags WHERE key = 'date' ORDER BY value").splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:00", date) for date in dates), dates
    return [datetime.fromisoformat(date) for date in dates]


@pytest.mark.timeout(300)
def test_it_launches_one_run_a_minute(deployment: Deployment) -> None:
    dates = deployment.wait_for(
        "runs of the schedule over 3 minutes", lambda: scheduled(deployment), lambda dates: len(dates) > 3, timeout=240
    )
    assert dates == [dates[0] + minute * MINUTE for minute in range(len(dates))]
    assert now() - dates[-1] < 1.5 * MINUTE, "the last minutes have no run"


@pytest.mark.timeout(300)
def test_it_stops_when_switched_off_and_continues_when_switched_on(page: Page, deployment: Deployment) -> None:
    page.goto(f"{deployment.url}/locations/pipeline/jobs/{JOB}")
    switch = page.get_by_role("checkbox").first  # an input without a size; its parent is what a user clicks
    expect(switch).to_be_checked()
    switch.locator("..").click()
    expect(switch).not_to_be_checked()
    off = now()

    boundary = off.replace(second=0, microsecond=0) + MINUTE
    deployment.wait_for("the next minute, and 15 s", now, lambda time: time > boundary + MINUTE / 4, timeout=80)
    assert scheduled(deployment)[-1] < off

    switch.locator("..").click()
    expect(switch).to_be_checked()
    on = now()
    dates = deployment.wait_for(
        "the schedule's next run", lambda: scheduled(deployment), lambda dates: dates[-1] > off, timeout=90
    )
    assert dates[-1] > on, "it caught up on a minute when it was off"
