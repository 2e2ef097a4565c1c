"""What a page of another site, open in a browser on the same machine, can do to Dagit: link to it."""

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.stack import JOB, LOCATION, Deployment

SELECTOR = ", ".join(f'{key}: "{value}"' for key, value in (LOCATION | {"jobName": JOB}).items())
TAGS = '{ tags: [{ key: "asked_by", value: "NAME" }] }'
LAUNCH = (
    f"mutation {{ launchRun(executionParams: {{ selector: {{ {SELECTOR} }}, executionMetadata: {TAGS} }})"
    " { ... on LaunchRunSuccess { run { runId } } } }"
)
LAUNCHED = f"query {{ runsOrError(filter: {TAGS}) {{ ... on Runs {{ count }} }} }}"

# Each returns what the page learns.
ATTACKS = {
    "text": """() => fetch(URL, { method: "POST", mode: "no-cors", body: BODY }).then(answer => answer.type)""",
    "JSON": """() => fetch(URL, { method: "POST", headers: { "Content-Type": "application/json" }, body: BODY })
        .then(answer => answer.text(), String)""",
    "a query in the address": """() => fetch(`${URL}?query=${encodeURIComponent(QUERY)}`, { mode: "no-cors" })
        .then(answer => answer.type)""",
    "an image": """() => new Promise(done => Object.assign(new Image(), {
        onload: () => done("loaded"), onerror: () => done("refused"),
        src: `${URL}?query=${encodeURIComponent(QUERY)}` }))""",
    "a WebSocket": """() => new Promise(done => {
        const socket = new WebSocket(URL.replace("http", "ws"), "graphql-ws");
        socket.onopen = () => socket.send(JSON.stringify({ type: "start", id: "1", payload: { query: QUERY } }));
        socket.onmessage = message => done(message.data);
        socket.onclose = () => done("refused") })""",
    "a form": """() => new Promise(done => {
        document.body.innerHTML = '<iframe name="inside"></iframe><form method="post" target="inside"><input></form>';
        const [form] = document.forms;
        Object.assign(form, { action: URL, enctype: "text/plain" });
        Object.assign(form[0], { name: BODY.slice(0, -1) + ', "x": "', value: '"}' });
        frames[0].onload = document.querySelector("iframe").onload = () => done("loaded");
        form.submit() })""",
}
LEARNED = {"opaque", "TypeError: Failed to fetch", "refused", "loaded"}


@pytest.fixture(scope="module")
def other_site() -> Iterator[int]:
    """Yield the port of a web server with an empty page."""

    class EmptyPage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Another site</title><body>")

        def log_message(self, *args: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # of Dagit's site, on another port; of another site
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_page_of_another_site_launches_nothing(
    attack: str, host: str, other_site: int, page: Page, deployment: Deployment
) -> None:
    name = re.sub(r"\W", "_", f"{attack} of {host}")
    query = LAUNCH.replace("NAME", name)
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status) if deployment.url in answer.url else None)
    page.goto(f"http://{host}:{other_site}")
    page.evaluate(
        "values => Object.assign(window, values)",
        {"URL": f"{deployment.url}/graphql", "QUERY": query, "BODY": json.dumps({"query": query})},
    )
    assert page.evaluate(ATTACKS[attack]) in LEARNED
    assert set(statuses) <= {403}
    assert deployment.query(LAUNCHED.replace("NAME", name)) == {"count": 0}


def test_the_same_operation_launches_a_run_if_dagit_is_asked_properly(deployment: Deployment) -> None:
    launched = deployment.query(LAUNCH.replace("NAME", "owner"))
    assert deployment.query(LAUNCHED.replace("NAME", "owner")) == {"count": 1}
    assert deployment.finish(launched["run"]["runId"]) == "SUCCESS"


def test_a_page_of_another_site_shows_nothing_of_dagit_but_links_to_it(
    other_site: int, page: Page, deployment: Deployment
) -> None:
    page.goto(f"http://localhost:{other_site}")
    page.set_content(f'<iframe src="{deployment.url}/runs"></iframe><a href="{deployment.url}/runs">Dagit</a>')
    assert "Dagster" not in page.frames[1].content()
    page.get_by_role("link", name="Dagit").click()
    expect(page).to_have_title(re.compile("Runs"))


def test_a_name_that_leads_here_is_refused(deployment: Deployment) -> None:
    answer = requests.get(deployment.url, headers={"Host": f"evil.example:{deployment.port}"}, timeout=30)
    assert (answer.status_code, "set DAGIT_HOST" in answer.text) == (403, True)
