"""The guard in front of Dagit: what is refused, and that everything of Dagit's own goes on."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

from tests.stack import ROOT, free_port

OWN = "dagit.example.com"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "graphql-ws",
}
JSON = {"Content-Type": "application/json"}
QUERY = json.dumps({"query": "{ version }"})
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def request(port: int, method: str, path: str, headers: dict[str, str], body: str | None = None) -> tuple[int, str]:
    """Return the status and the text of the answer, which no frame of another page may show."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode() if answer.status != 101 else ""
    if "Upgrade" not in headers:
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers.get_all("Content-Security-Policy", [])
    connection.close()
    return answer.status, text


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Yield the port of a Dagit that is started as in its container, without code locations."""
    home, port = tmp_path_factory.mktemp("dagit"), free_port()
    (home / "dagster.yaml").write_text("telemetry: { enabled: false }")
    environment = os.environ | {"DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT / "deploy"), "DAGIT_HOST": OWN}
    command = [sys.executable, str(ROOT / "deploy/container/start-dagit"), "--host", "127.0.0.1", "--port", str(port)]
    log = home / "log"
    with log.open("w") as output:
        dagit = subprocess.Popen(
            [*command, "--empty-workspace"], cwd=home, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 120
        while "Serving dagster-webserver" not in log.read_text() or not answers(port):
            assert dagit.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield port
    finally:
        dagit.terminate()
        dagit.wait(timeout=60)


def answers(port: int) -> bool:
    """Tell whether somebody listens."""
    try:
        return request(port, "GET", "/server_info", {})[0] == 200
    except ConnectionRefusedError:
        return False


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "dagit", "dagit-viewer", "LocalHost", OWN])
def test_it_answers_to_its_own_names_on_any_port(name: str, port: int) -> None:
    for host in (name, f"{name}:{port}", f"{name}:443"):
        assert request(port, "GET", "/server_info", {"Host": host})[0] == 200
        own = {"Host": host, "Origin": f"https://{host.lower()}"}  # https: behind the edge
        assert request(port, "POST", "/graphql", JSON | own, QUERY)[0] == 200
        assert request(port, "GET", "/graphql", UPGRADE | own)[0] == 101


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:3000", "localhost.evil.example", "localhost@evil.example", f"x.{OWN}"),
        *("127.0.0.1.evil.example", "127.0.0.2", "[::2]", "::1", "localhost.", "localhost:", "localhost:1:2", ":1", ""),
    ],
)
def test_another_name_is_refused(host: str, port: int) -> None:
    for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}):
        status, reason = request(port, "GET", "/server_info", headers)
        assert (status, "set DAGIT_HOST" in reason) == (403, True)
        assert request(port, "GET", "/graphql", UPGRADE | headers)[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        *({"Origin": origin} for origin in ("https://evil.example", "http://localhost:1", "file://", "null", "")),
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        LINK | {"Sec-Fetch-Dest": "iframe"},
        LINK | {"Sec-Fetch-Dest": "object"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "unheard-of"},
    ],
    ids=str,
)
def test_a_page_of_another_origin_is_refused(headers: dict[str, str], port: int) -> None:
    assert request(port, "GET", "/server_info", headers)[0] == 403
    assert request(port, "POST", "/graphql", JSON | headers, QUERY)[0] == 403
    assert request(port, "POST", "/report_asset_materialization/x", headers)[0] == 403
    assert request(port, "GET", "/graphql", UPGRADE | headers)[0] == 403


def test_a_link_is_followed_and_a_form_is_not_sent(port: int) -> None:
    assert request(port, "GET", "/runs", LINK)[0] == 200
    assert request(port, "POST", "/graphql", JSON | LINK, QUERY)[0] == 403


@pytest.mark.parametrize(
    "content_type",
    [
        *("text/plain", "text/plain; application/json", "application/x-www-form-urlencoded", "multipart/form-data"),
        *("application/json-not", "application/jsonx", "text/json", ""),
    ],
)
def test_no_operation_is_executed_that_a_browser_sends_without_asking(content_type: str, port: int) -> None:
    status, reason = request(port, "POST", "/graphql?query={version}", {"Content-Type": content_type}, QUERY)
    assert (status, reason) == (415, "Send the operation as application/json.")


@pytest.mark.parametrize(
    "path", ["/graphql?query={version}", "/graphql%0A?query={version}", "/%67raphql?query={version}"]
)
def test_no_operation_is_executed_by_get(path: str, port: int) -> None:
    assert request(port, "GET", path, {})[0] == 405
    assert "version" not in request(port, "GET", path, JSON, QUERY)[1]
    assert '"data"' not in request(port, "GET", path, {"Accept": "text/html"})[1]
    assert request(port, "HEAD", path, {})[0] == 405


def test_pages_and_programs_go_on(port: int) -> None:
    page = {"Accept": "text/html", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for path in ("/", "/runs", "/graphql", "/favicon.svg"):
        assert request(port, "GET", path, page)[0] == 200
    own = JSON | {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert '"version"' in request(port, "POST", "/graphql", own, QUERY)[1]
    utf8 = {"Content-Type": "application/json; charset=utf-8"}
    assert '"version"' in request(port, "POST", "/graphql", utf8, QUERY)[1]
    assert '"version"' in request(port, "POST", "/graphql", {"Content-Type": "application/graphql"}, "{ version }")[1]
    with pytest.raises(DagsterGraphQLClientError, match="RunNotFoundError"):
        DagsterGraphQLClient("127.0.0.1", port_number=port).get_run_status("no run")
