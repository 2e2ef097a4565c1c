"""Dagit where it is published: what is seen without a login, and that everything works with one."""

import base64
import json
import os
import pty
import re
import socket
import ssl
import subprocess
from http.client import HTTPSConnection
from typing import Any

import pytest
import requests
from dagster_webserver.webserver import DagsterWebserver
from docker.errors import ContainerError
from playwright.sync_api import Browser, Error, HttpCredentials, Page, expect

from tests.edge.published import ALICE, BOB, Published
from tests.stack import JOB, ROOT, free_port


def every_path() -> list[str]:
    """Return one path for each of Dagit's routes, as Dagit itself lists them, and some that miss them narrowly."""
    webserver: Any = DagsterWebserver.__new__(DagsterWebserver)
    webserver._app_path_prefix = ""
    templates = [route.path for route in webserver.build_routes()]
    routes = [re.sub(r"\{\w+:\w+\}", "x", template) for template in templates]
    return [*routes, "//graphql", "/%67raphql", "/graphql/", "/vendor/../graphql", "/graphql?query={version}"]


UPGRADE: dict[str, Any] = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Protocol": "graphql-ws",
}


def test_without_a_login_every_route_is_refused_and_nothing_of_dagit_is_seen(edge: Published) -> None:
    paths = every_path()
    assert {"/", "/graphql", "/server_info", "/logs/x", "/download_debug/x", "/notebook"} < set(paths)
    seen = {}
    for path in paths:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            status, headers, body = edge.request(path, method=method)
            seen[method, path] = (status, body, headers.keys() - {"content-length", "date"}, headers.get("server"))
    refused = (401, b"", {"server", "www-authenticate"}, "Caddy")
    assert {request: answer for request, answer in seen.items() if answer != refused} == {}


def test_without_a_login_a_websocket_is_refused(edge: Published) -> None:
    assert edge.request("/graphql", **UPGRADE)[0] == 401
    assert edge.request("/graphql", ALICE, **UPGRADE)[0] == 101


@pytest.mark.parametrize(
    "header",
    [
        *("", "Basic", "Basic ", "Basic !", "Bearer alice", "Digest username=alice"),
        *(
            f"Basic {base64.b64encode(login.encode()).decode()}"
            for login in (":", "alice", "alice:", ":correct horse battery", "alice:correct horse", "Alice:" + ALICE[1])
        ),
        f"Basic {base64.b64encode(('alice:' + BOB[1]).encode()).decode()}",
    ],
)
def test_a_wrong_login_is_refused(header: str, edge: Published) -> None:
    status, _, body = edge.request("/server_info", Authorization=header)
    assert (status, body) == (401, b"")


def test_with_a_login_dagit_answers(edge: Published) -> None:
    status, headers, body = edge.request("/", ALICE)
    assert (status, b"Dagster" in body) == (200, True)
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert "strict-transport-security" not in headers  # on localhost


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}, 403),
        ({"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "websocket", **UPGRADE}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}, 200),  # a link
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "object"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}, 403),
        ({"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"}, 200),
    ],
    ids=str,
)
def test_another_site_cannot_use_the_login_in_the_browser(
    headers: dict[str, str], status: int, edge: Published
) -> None:
    assert edge.request("/server_info", ALICE, **headers)[0] == status


@pytest.mark.parametrize("login", [ALICE, BOB])
def test_a_browser_that_does_not_tell_the_site_cannot_be_made_to_use_it_either(
    login: tuple[str, str], edge: Published
) -> None:
    text = {"method": "POST", "body": '{"query": "{version}"}', "Content_Type": "text/plain"}
    assert edge.request("/graphql?query={version}", login)[0] == 405
    assert edge.request("/graphql?query={version}", login, **text)[0] == 415
    assert edge.request("/graphql", login, **UPGRADE, Origin="https://evil.example")[0] == 403


def test_http_leads_to_https(edge: Published) -> None:
    for host in ("localhost", "evil.example"):
        answer = requests.get(
            f"http://127.0.0.1:{edge.http}/runs?a=b", headers={"Host": host}, allow_redirects=False, timeout=10
        )
        assert (answer.status_code, answer.headers["Location"]) == (308, f"{edge.address}/runs?a=b")
        assert answer.content == b""


def test_another_name_is_refused(edge: Published) -> None:
    assert edge.request("/", ALICE, Host="evil.example")[0] == 421


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(version: ssl.TLSVersion, edge: Published) -> None:
    old = ssl.create_default_context()
    old.minimum_version = old.maximum_version = version
    old.set_ciphers("ALL:@SECLEVEL=0")  # or else this side refuses
    with pytest.raises(ssl.SSLError) as error:
        HTTPSConnection("localhost", edge.https, context=old, timeout=10).request("GET", "/")
    assert error.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"


def test_the_plain_port_is_on_loopback_alone(edge: Published) -> None:
    published = {
        container.labels["com.docker.compose.service"]: container.attrs["HostConfig"]["PortBindings"]
        for container in edge.containers()
        if container.attrs["HostConfig"]["PortBindings"]
    }
    assert published == {
        "dagit": {"3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(edge.port)}]},
        "edge": {
            "8443/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(edge.https)}],
            "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(edge.http)}],
        },
    }
    (network,) = edge.container("edge").attrs["NetworkSettings"]["Networks"].values()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{network['Gateway']}:{edge.port}/server_info", timeout=10)


def test_the_edge_shares_a_network_with_dagit_alone(edge: Published) -> None:
    networks = edge.container("edge").attrs["NetworkSettings"]["Networks"]
    (network,) = edge.engine.networks.list(ids=[network["NetworkID"] for network in networks.values()], greedy=True)
    members = {container.labels["com.docker.compose.service"] for container in network.containers}
    assert members == {"edge", "dagit", "dagit-viewer"}


def test_the_edge_has_no_privilege(edge: Published) -> None:
    status = edge.run_in("edge", "cat", "/proc/1/status").decode()
    assert re.findall(r"^(?:Cap\w+|NoNewPrivs|Uid):\s+(.*)$", status, re.MULTILINE) == [
        "1000\t1000\t1000\t1000",
        *["0000000000000000"] * 5,
        "1",
    ]
    with pytest.raises(AssertionError, match="Read-only file system"):
        edge.run_in("edge", "touch", "/var/tmp/x")


def visit(page: Page, url: str) -> None:
    """Open a page, again if a container's network came or went meanwhile, on which Chromium drops its requests."""
    dropped = ["ERR_NETWORK_CHANGED"]
    page.on("requestfailed", lambda request: dropped.append(str(request.failure)))
    while any("ERR_NETWORK_CHANGED" in each for each in dropped):
        dropped.clear()
        try:
            page.goto(url, wait_until="networkidle")
        except Error:
            if not any("ERR_NETWORK_CHANGED" in each for each in dropped):
                raise


def test_a_run_is_launched_and_its_log_streams_in_a_browser(browser: Browser, edge: Published) -> None:
    frames: list[str] = []
    errors: list[str] = []
    failed: list[str] = []
    login: HttpCredentials = {"username": ALICE[0], "password": ALICE[1], "origin": None, "send": None}
    with browser.new_context(http_credentials=login, ignore_https_errors=True) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("requestfailed", lambda request: failed.append(str(request.failure)))
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: frames.append(str(frame))))
        visit(page, f"{edge.address}/locations/pipeline/jobs/{JOB}/playground")
        page.get_by_role("button", name="Launch Run").click()
        page.wait_for_url("**/runs/*")
        expect(page.get_by_text("RUN_SUCCESS")).to_be_visible(timeout=60_000)
        run_id = page.url.rsplit("/", 1)[1]
        assert any("pipelineRunLogs" in frame and run_id in frame for frame in frames), frames[:5]
    # Chromium drops its requests when a container's network comes or goes; Dagit then says that it failed to fetch.
    assert [each for each in failed if not re.search("ERR_NETWORK_CHANGED|ERR_ABORTED", each)] == []
    assert [error for error in errors if not re.search("ERR_NETWORK_CHANGED|Failed to fetch", error)] == []
    (stdout,) = {event["fileKey"] for event in edge.events(run_id) if event["__typename"] == "LogsCapturedEvent"}
    status, _, printed = edge.request(f"/logs/{run_id}/compute_logs/{stdout}/out", ALICE)
    assert (status, b"A   OR      ALPHA" in printed) == (200, True)


def test_a_browser_without_a_login_sees_nothing(browser: Browser, edge: Published) -> None:
    statuses: list[int] = []
    with browser.new_context(ignore_https_errors=True) as context:
        page = context.new_page()
        page.on("response", lambda response: statuses.append(response.status))
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
            visit(page, f"{edge.address}/runs")
    assert set(statuses) == {401}


LAUNCH = (
    'mutation { launchRun(executionParams: { runConfigData: {}, selector: { jobName: \\"'
    f"{JOB}"
    '\\", repositoryName: \\"__repository__\\", repositoryLocationName: \\"pipeline\\" } }) '
    "{ __typename ... on LaunchRunSuccess { run { runId } } } }"
)


def test_a_viewer_sees_runs_and_launches_none(edge: Published) -> None:
    assert '"Runs"' in edge.execute("{ runsOrError { __typename } }", BOB)
    assert '"UnauthorizedError"' in edge.execute(LAUNCH, BOB)
    assert '"value":true' not in edge.execute("{ permissions { permission value } }", BOB)
    status, _, body = edge.request("/report_asset_materialization/x", BOB, method="POST")
    assert (status, b"Not authorized" in body) == (401, True)
    launched = json.loads(edge.execute(LAUNCH, ALICE))
    assert edge.finish(launched["data"]["launchRun"]["run"]["runId"]) == "SUCCESS"


@pytest.mark.parametrize(
    ("name", "password", "role", "said"),
    [
        ("", "long enough a password", "", "NAME is missing"),
        ("../alice", "long enough a password", "", "A name has"),
        ("alice bob", "long enough a password", "", "A name has"),
        ("alice\nbob", "long enough a password", "", "A name has"),
        ("{file./etc/passwd}", "long enough a password", "", "A name has"),
        ("x" * 65, "long enough a password", "", "A name has"),
        ("import", "long enough a password", "", "choose another name"),
        ("default", "long enough a password", "", "choose another name"),
        ("carol", "", "", "No password was given"),
        ("carol", "eleven char", "", "12 characters or more"),
        ("carol", "x" * 73, "", "72 bytes at most"),
        ("carol", "long enough a password", "admin", "There is no role admin"),
    ],
)
def test_make_user_refuses(name: str, password: str, role: str, said: str, edge: Published) -> None:
    before = edge.run_in("edge", "sh", "-c", "cat /data/edge/*/*")
    done = edge.make_user(name, password, role)
    assert done.returncode != 0
    assert said in done.stderr
    assert edge.run_in("edge", "sh", "-c", "cat /data/edge/*/*") == before


def test_a_login_is_made_changed_demoted_and_removed_while_the_edge_runs(edge: Published) -> None:
    def answers(password: str) -> tuple[int, bool]:
        login = ("dave@example.com", password)
        may = edge.execute("{ permissions { permission value } }", login)
        return edge.request("/server_info", login)[0], '"value":true' in may

    assert answers("the first password") == (401, False)
    assert edge.make_user("dave@example.com", "the first password").returncode == 0
    assert answers("the first password") == (200, True)
    assert edge.make_user("dave@example.com", "the second password", "viewer").returncode == 0
    assert answers("the first password") == (401, False)
    assert answers("the second password") == (200, False)
    assert edge.make_user("dave@example.com", role="none").returncode == 0
    assert answers("the second password") == (401, False)
    assert edge.request("/server_info", ALICE)[0] == 200


def test_make_user_asks_for_the_password_without_echo(edge: Published) -> None:
    terminal, theirs = pty.openpty()
    make = subprocess.Popen(
        ["make", "user"],
        cwd=ROOT,
        env=os.environ | edge.environment | {"NAME": "erin", "ROLE": ""},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    for prompt in (b"Password for erin: ", b"Repeat it: "):
        while prompt not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, b"typed by hand\n")
    while b"erin can log in." not in shown:
        shown += os.read(terminal, 1024)
    assert make.wait(timeout=60) == 0
    assert b"typed" not in shown
    assert edge.request("/server_info", ("erin", "typed by hand"))[0] == 200


def test_passwords_are_hashed_and_in_no_log(edge: Published) -> None:
    assert edge.request("/server_info", ALICE)[0] == 200
    stored = edge.run_in("edge", "sh", "-c", "cat /data/edge/users/*").decode()
    assert re.fullmatch(r"(\S+ \$2a\$14\$\S{53}\n)+", stored)
    logs = edge.logs("--tail", "all")
    assert '"user_id":"alice"' in logs
    for secret in (ALICE[1], BOB[1], base64.b64encode(":".join(ALICE).encode()).decode(), "$2a$14$"):
        assert secret not in logs


def test_without_logins_the_edge_does_not_start(edge: Published) -> None:
    with pytest.raises(ContainerError, match=r"There is no login yet.* make user NAME=alice"):
        edge.engine.containers.run(f"{edge.project}-edge", remove=True)


def test_a_public_name_gets_a_public_certificate(edge: Published) -> None:
    adapt = ["caddy", "adapt", "--config", "/etc/caddy/Caddyfile"]
    environment = {"DAGIT_HOST": "dagit.example.com", "HTTPS_PORT": "443", "CADDY_OPTIONS": ""}
    adapted = edge.engine.containers.run(f"{edge.project}-edge", adapt, environment=environment, remove=True).decode()
    assert '"dagit.example.com"' in adapted
    assert "internal" not in adapted
    environment["CADDY_OPTIONS"] = "local_certs"
    adapted = edge.engine.containers.run(f"{edge.project}-edge", adapt, environment=environment, remove=True).decode()
    assert '"issuers":[{"module":"internal"}]' in adapted


def test_under_a_public_name_browsers_are_told_to_insist_on_https(edge: Published) -> None:
    name, port = "dagit.example.com", free_port()
    container = edge.engine.containers.run(
        f"{edge.project}-edge",
        detach=True,
        environment={"DAGIT_HOST": name, "HTTPS_PORT": str(port), "CADDY_OPTIONS": "local_certs"},
        volumes={f"{edge.project}_edge": {"bind": "/data"}},
        network=f"{edge.project}_published",
        ports={"8443/tcp": ("127.0.0.1", port)},
    )
    try:
        edge.wait_for("the certificate", lambda: container.logs().decode(), lambda log: "certificate obtained" in log)
        connection = HTTPSConnection(name)
        plain = socket.create_connection(("127.0.0.1", port), timeout=60)
        connection.sock = edge.tls.wrap_socket(plain, server_hostname=name)
        login = base64.b64encode(":".join(ALICE).encode()).decode()
        connection.request("GET", "/server_info", headers={"Authorization": f"Basic {login}"})
        answer = connection.getresponse()
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert answer.status == 403  # from Dagit, whose DAGIT_HOST is another
    finally:
        container.remove(force=True)


SECURITY = (ROOT / "docs/security.md").read_text()

# In place of OAuth2 Proxy: whoever has the cookie `who` is logged in.
PROXY = """
http://:4180 {
	@nobody not header Cookie *
	respond @nobody 401
	header X-Auth-Request-Email {http.request.cookie.who}
	respond 202
}
"""


def test_single_sign_on_as_documented_keeps_the_role(edge: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = re.findall(r"^```text\n(request_header .*?)^```", SECURITY, re.MULTILINE | re.DOTALL)
    user, email = re.findall(r"`({http[^`]+})`", SECURITY)
    caddyfile = (ROOT / "deploy/edge/Caddyfile").read_text().replace(user, email)
    caddyfile = re.sub(r"basicauth {.*?}", lambda _: recipe, caddyfile, count=1, flags=re.DOTALL) + PROXY

    def may_change(who: str) -> bool:
        headers = {"Content_Type": "application/json", "Cookie": f"who={who}", "X_Auth_Request_Email": "alice"}
        query = '{"query": "{ permissions { value } }"}'
        answer = edge.request("/graphql", None, method="POST", body=query, **headers)[2]
        assert b'"permissions"' in answer
        return b'"value":true' in answer

    write = 'printf %s "$1" >/tmp/Caddyfile && exec caddy run --config /tmp/Caddyfile'
    port = free_port()
    container = edge.engine.containers.run(
        f"{edge.project}-edge",
        ["sh", "-c", write, "sh", caddyfile.replace("oauth2-proxy:", "127.0.0.1:")],
        detach=True,
        environment={"DAGIT_HOST": "localhost", "HTTPS_PORT": str(port)},
        volumes={f"{edge.project}_edge": {"bind": "/data"}},
        network=f"{edge.project}_published",
        ports={"8443/tcp": ("127.0.0.1", port)},
    )
    try:
        edge.wait_for("Caddy", lambda: container.logs().decode(), lambda log: "serving initial configuration" in log)
        monkeypatch.setattr(edge, "https", port)
        assert edge.request("/runs", X_Auth_Request_Email="alice")[0] == 302
        assert (may_change("alice"), may_change("bob")) == (True, False)
    finally:
        container.remove(force=True)
