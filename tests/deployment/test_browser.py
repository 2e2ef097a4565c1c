"""Dagit, in a browser."""

import os
import re

import pytest
from playwright.sync_api import Page, expect

from tests.stack import JOB, ROOT, Deployment

BY_HAND = """
ops:
  get_string:
    config:
      data_key: '{data_key}'
  normalize_string:
    config:
      norm: {norm}
"""


def open_launchpad(page: Page, deployment: Deployment) -> None:
    """Open the Launchpad of the job, with its default config in the editor."""
    page.goto(f"{deployment.url}/locations/pipeline/jobs/{JOB}/playground")
    expect(page.locator(".CodeMirror").first).to_contain_text("data_key: '1'")


def edit(page: Page, config: str) -> None:
    """Replace the text in the Launchpad's editor."""
    page.locator(".CodeMirror").first.click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(config)


def screenshot(page: Page, name: str) -> None:
    """Save a screenshot of the page for the documentation, if SCREENSHOTS=1."""
    if os.getenv("SCREENSHOTS") == "1":
        page.screenshot(path=ROOT / "docs" / "images" / f"{name}.png")


@pytest.fixture(scope="module")
def run_id(deployment: Deployment) -> str:
    """Launch the job, wait for its success, return the run's id."""
    run_id = deployment.launch()
    assert deployment.finish(run_id) == "SUCCESS"
    return run_id


def test_the_launchpad_opens_with_a_complete_config_and_launches_an_edited_one(
    page: Page, deployment: Deployment
) -> None:
    open_launchpad(page, deployment)
    expect(page.get_by_text("No errors")).to_be_visible()
    screenshot(page, "launchpad")
    edit(page, BY_HAND.format(data_key="2", norm="lower"))
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_text("Success", exact=True)).to_be_visible(timeout=60_000)
    run_id = page.url.rsplit("/", 1)[1]
    assert deployment.read(f"/data/{run_id}/sent_clean.txt") == b"b   or    beta    "


def test_the_page_of_a_run_shows_what_it_printed(run_id: str, page: Page, deployment: Deployment) -> None:
    page.goto(f"{deployment.url}/runs/{run_id}")
    expect(page.get_by_text("Success", exact=True)).to_be_visible()
    expect(page.get_by_text("RUN_SUCCESS")).to_be_visible()
    page.get_by_role("button", name="stdout").click()
    page.get_by_role("combobox").click()
    page.get_by_role("menuitem", name="3 steps").click()
    expect(page.get_by_text("A   OR      ALPHA")).to_be_visible()
    page.get_by_role("button", name="stderr").click()
    expect(page.get_by_text("Picked sentence 1 over the connection")).to_be_visible()
    page.get_by_role("button", name="Events").click()
    expect(page.get_by_text("RUN_SUCCESS")).to_be_visible()
    screenshot(page, "run")


def test_the_list_of_runs_is_green(run_id: str, page: Page, deployment: Deployment) -> None:
    page.goto(f"{deployment.url}/runs")
    expect(page.get_by_role("link", name=run_id[:8])).to_be_visible()
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    screenshot(page, "runs")


def test_the_launchpad_shows_what_is_wrong_with_a_bad_config(page: Page, deployment: Deployment) -> None:
    open_launchpad(page, deployment)
    edit(page, BY_HAND.format(data_key="3", norm="upper"))
    expect(page.get_by_text("not in enum type Literal['1', '2'] got 3").first).to_be_visible()
    expect(page.get_by_role("button", name="Launch Run")).to_be_disabled()


def test_the_launchpad_rejects_a_bad_norm(page: Page, deployment: Deployment) -> None:
    open_launchpad(page, deployment)
    edit(page, BY_HAND.format(data_key="1", norm="title"))
    page.get_by_role("button", name="Launch Run").click()
    expect(page.get_by_text("not in enum type Literal['upper', 'lower'] got title").first).to_be_visible()
    expect(page).not_to_have_url(re.compile("/runs/"))


def test_a_run_is_terminated(page: Page, neighbour: Deployment) -> None:
    run_id = neighbour.hang()
    page.goto(f"{neighbour.url}/runs/{run_id}")
    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
    assert neighbour.finish(run_id) == "CANCELED"
    expect(page.get_by_text("Canceled", exact=True)).to_be_visible()
