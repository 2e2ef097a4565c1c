"""Nothing but a run container comes out of the gate, whatever goes in."""

import asyncio
import json
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import docker
import pytest
from gate import reaper
from gate.code_servers import CodeServers
from gate.engine import Engine
from gate.runs import Runs

from tests.gate.attacks import MARK, Attack, attacks, http
from tests.gate.conftest import ARGUMENTS, IMAGE, RUN_ID, TAGGED, Gate, launch
from tests.gate.engine import (
    CODE_SERVER,
    EXITED,
    FOREIGN,
    LABEL,
    OTHER,
    OWN,
    PRINTED,
    SECRET,
    WAREHOUSE,
    FakeEngine,
    Request,
)

# Families of create requests that are to be refused, not just launched as described.
REFUSED = {
    "what the operator granted",
    "privilege",
    "limits",
    "mounts",
    "namespaces",
    "images",
    "commands",
    "environment",
    "labels",
    "JSON tricks",
}
OpenGate = Callable[..., tuple[Gate, FakeEngine]]


def asked_for(directory: Path, version: str) -> dict[str, Any]:
    """Return the body of the create request that docker-py makes for the launcher in this version of the API."""
    engine = FakeEngine(directory, version)
    launch(docker.DockerClient(f"unix://{engine.socket}", version="auto"))
    engine.close()
    return dict(next(request for request in engine.requests if request.path.endswith("/create")).json)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return asked_for(tmp_path_factory.mktemp("plain"), "1.41")


# The one body that may reach the engine: the run as asked for, in a container like that of tests/gate/engine.py.
RUN_CONTAINER = {
    "Image": TAGGED,
    "Cmd": ["dagster", "api", "execute_run", json.dumps(ARGUMENTS)],
    "User": "1000",
    "Env": [
        "PYTHON_CPU_COUNT=2",  # 150 % of a core
        *("PGHOST=postgres", f"CREDENTIALS={SECRET}", 'TRICKY=a="b" $c\nd', "HOME=/scratch/home"),
        "DAGSTER_RUN_JOB_NAME=clean_string_job",
    ],
    "Volumes": {"/scratch": {}, "/from-before": {}},
    "StopTimeout": 15,
    "Labels": {
        "com.docker.compose.project": "project",
        "com.docker.compose.service": "user_code",
        "com.docker.compose.oneoff": "True",
        "com.docker.compose.config-hash": "run",
        "com.docker.compose.container-number": "1",
        "dagster/run_id": RUN_ID,
        "dagster/job_name": "clean_string_job",
        LABEL: "project",
    },
    "HostConfig": {
        "Binds": ["project_secret:/secret:ro", "/srv/input:/input:ro"],
        "Mounts": [
            {"Type": "volume", "Source": "project_data", "Target": "/data", "VolumeOptions": {}},
            {"Type": "volume", "Target": "/cache"},
            {"Type": "bind", "Source": "/home/operator/token", "Target": "/run/secrets/token", "ReadOnly": True},
        ],
        "NetworkMode": "project_runs",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "ReadonlyRootfs": True,
        "Init": True,
        "Tmpfs": {"/tmp": ""},
        "ShmSize": 67108864,
        "GroupAdd": ["44"],
        "ExtraHosts": ["warehouse.example:192.0.2.1"],
        "Dns": ["192.0.2.53"],
        "Sysctls": {"net.core.somaxconn": "64"},
        "Ulimits": [{"Name": "nofile", "Soft": 4096, "Hard": 4096}],
        "DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
        "Runtime": "runc",
        "Memory": 2 << 30,
        "MemorySwap": 2 << 30,
        "CpuQuota": 150_000,
        "PidsLimit": 512,
    },
}
CODE_SERVERS = {
    "label": ["com.docker.compose.project=project", "com.docker.compose.oneoff=False", "deployable-dagster.run.memory"],
    "status": [],
}


def is_harmless(request: Request, version: str) -> bool:
    """Tell whether the engine may receive this from a gate under attack."""
    prefix, slash, path = unquote_plus(request.path).removeprefix("/").partition("/")
    if prefix + slash != f"v{version}/":
        return False
    if request.method == "GET":
        runs = 'containers/json?all=1&filters={"label": ["deployable-dagster.gate=project"], "status": '
        servers = f"containers/json?all=1&filters={json.dumps(CODE_SERVERS)}"
        inspect = f"containers/[0-9a-f]{{64}}/json|images/{CODE_SERVER['Image']}/json|volumes/project_[a-z_]+"
        known = path == servers or path.startswith(runs) or re.fullmatch(inspect, path)
        return not request.body and bool(known)
    try:
        body = request.json
    except (ValueError, RecursionError):
        return False
    connects = path == f"networks/{WAREHOUSE}/connect" and set(body) == {"Container"}
    creates = path == "containers/create" and body == RUN_CONTAINER
    return request.method == "POST" and (connects or creates)


def judge(attack: Attack, answer: bytes, received: list[Request], version: str) -> list[str]:
    """List what an attack achieved."""
    harm = [f"the engine received {request}"[:300] for request in received if not is_harmless(request, version)]
    if attack.family in REFUSED and not answer.startswith(b"HTTP/1.1 4"):
        harm.append(f"it was not refused: {answer[:100]!r}")
    if SECRET.encode() in answer or PRINTED in answer:
        harm.append("what is in a container came out")
    foreign = [id_ for id_ in (FOREIGN, OTHER) if id_ in attack.raw.decode("latin-1") and b"Status" in answer]
    return harm + [f"the state of {id_} came out" for id_ in foreign]


def send_all(
    list_: list[Attack],
    send: Callable[[bytes, str], bytes],
    engine: FakeEngine,
    version: str = "1.41",
) -> dict[str, list[str]]:
    """Send one attack after the other; return what those achieved that achieved anything."""
    succeeded = {}
    for attack in list_:
        before = len(engine.requests)
        answer = send(attack.raw, attack.door)
        if harm := judge(attack, answer, engine.requests[before:], version):
            succeeded[f"{attack.family}: {attack.name}"] = harm
    return succeeded


@pytest.mark.parametrize("version", ["1.41", "1.44"])
def test_no_attack_gets_through(
    version: str, open_gate: OpenGate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate, engine = open_gate(most="1000", newest=version)
    asked = asked_for(tmp_path, version)
    all_ = sorted(attacks(asked, version), key=lambda attack: attack.family)
    table: list[tuple[str, int, int]] = []
    succeeded: dict[str, list[str]] = {}
    for family, members in groupby(all_, key=lambda attack: attack.family):
        list_ = list(members)
        if family == "slow and huge":  # they take as long as the gate's patience, so all at once, and judged together
            before = len(engine.requests)
            with ThreadPoolExecutor(len(list_)) as pool:
                list(pool.map(lambda attack: gate.send(attack.raw, attack.door), list_))
            harm = [r for r in engine.requests[before:] if not is_harmless(r, version)]
            through = {family: [str(r)[:300] for r in harm]} if harm else {}
        else:
            through = send_all(list_, gate.send, engine, version)
        succeeded |= through
        table.append((family, len(list_), len(through)))
    with capsys.disabled():
        print(f"\n\nattacks, API {version}: tried / let through")
        for family, tried, through_count in [*table, ("all", len(all_), len(succeeded))]:
            print(f"  {family:40} {tried:4} {through_count:4}")
    assert not succeeded
    assert len(all_) >= 1100
    assert MARK not in gate.text()
    assert SECRET not in gate.text()
    # It has lost nothing by it: the next run is launched.
    assert launch(gate.client()).status == "created"


def test_the_judge_convicts(tmp_path: Path, asked: dict[str, Any]) -> None:
    """Sent straight to an engine, most of the attacks are seen to succeed; so the test above can fail."""
    engine = FakeEngine(tmp_path)

    def send(raw: bytes, _door: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(engine.socket)
            client.settimeout(5)
            try:
                client.sendall(raw)
                client.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: client.recv(65536), b""))
            except (BrokenPipeError, ConnectionResetError, TimeoutError):  # of what waits for a container's end
                return b""

    list_ = attacks(asked, "1.41")
    assert len(send_all(list_, send, engine)) > 0.8 * len(list_)


def test_the_launcher_gets_what_it_needs(open_gate: OpenGate, asked: dict[str, Any]) -> None:
    gate, engine = open_gate()
    container = launch(gate.client())
    assert [request.json for request in engine.requests if request.path.endswith("/create")] == [RUN_CONTAINER]
    container.start()
    container.reload()
    assert container.status == "running"
    at_stop = gate.client("stop").containers.get(str(container.id))
    at_stop.stop(timeout=7)
    assert [(r.method, r.path) for r in engine.requests if r.method == "POST" and "/wait" not in r.path] == [
        ("POST", "/v1.41/containers/create"),
        ("POST", f"/v1.41/networks/{WAREHOUSE}/connect"),
        ("POST", f"/v1.41/containers/{container.id}/start"),
        ("POST", f"/v1.41/containers/{container.id}/stop?t=7"),
    ]


def test_what_differs_from_run_to_run_arrives(open_gate: OpenGate, asked: dict[str, Any]) -> None:
    gate, engine = open_gate()
    arguments: dict[str, Any] = {**ARGUMENTS, "name": 'Ünï\u2028"\\', "list": [1, 1.5, None, True, {"a": {}}]}
    body = {**asked, "Cmd": ["dagster", "api", "resume_run", json.dumps(arguments)]}
    assert gate.send(http("POST", "/v1.41/containers/create", json.dumps(body).encode())).startswith(b"HTTP/1.1 201 ")
    received = next(request.json for request in engine.requests if request.path.endswith("/create"))
    assert received["Cmd"][:3] == ["dagster", "api", "resume_run"]
    assert json.loads(received["Cmd"][3]) == arguments


@pytest.mark.parametrize("tag", ["latest", "1", "_", "a" * 128, "v1.2_3-X"])
def test_the_image_may_have_any_tag(tag: str, open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    launch(gate.client(), f"{IMAGE}:{tag}")
    (created,) = (request for request in engine.requests if request.path.endswith("/create"))
    assert created.json["Image"] == f"{IMAGE}:{tag}"


def test_inspect_tells_the_state_alone(gate: Gate) -> None:
    attributes = gate.client("stop").containers.get(OWN).attrs
    assert attributes == {
        "Id": OWN,
        "State": {"Status": "running", "Running": True, "ExitCode": 0},
        "Config": {"Tty": False},
    }


def test_a_foreign_container_is_as_if_absent(gate: Gate) -> None:
    answers = [
        gate.send(f"GET /v1.41/containers/{id_}/json HTTP/1.1\r\nHost: x\r\n\r\n".encode()).replace(id_.encode(), b"")
        for id_ in (FOREIGN, OTHER, "d" * 64)
    ]
    without_date = {re.sub(rb"Date: [^\r]*", b"", answer) for answer in answers}
    assert len(without_date) == 1


def test_a_missing_image_leads_to_no_pull_and_no_login(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    engine.images_exist = False
    with pytest.raises(docker.errors.APIError, match=f"the engine has no image {TAGGED}: build it") as raised:
        launch(gate.client())
    assert not isinstance(raised.value, docker.errors.NotFound)  # which the launcher takes for a reason to pull
    with pytest.raises(docker.errors.APIError, match="403"):
        gate.client().images.pull(IMAGE)
    with pytest.raises(docker.errors.APIError, match="403"):
        gate.client().login("user", "password")
    assert not [request for request in engine.requests if re.search("create[?]|auth", request.path)]


@pytest.mark.parametrize(
    ("oldest", "newest", "spoken"),
    [("1.12", "1.41", "1.41"), ("1.24", "1.44", "1.44"), ("1.44", "1.52", "1.44"), ("1.48", "1.60", "1.48")],
)
def test_old_and_new_engines_are_spoken_to_in_their_version(
    open_gate: OpenGate, oldest: str, newest: str, spoken: str
) -> None:
    gate, engine = open_gate(oldest=oldest, newest=newest)
    client = gate.client()
    assert client.api.version(api_version=False) == {"ApiVersion": spoken, "MinAPIVersion": spoken}
    launch(client).start()
    assert {request.path.split("/")[1] for request in engine.requests[1:]} == {f"v{spoken}"}


def test_a_restarted_gate_knows_its_containers_again(open_gate: OpenGate) -> None:
    gate, _ = open_gate()
    container = launch(gate.client())
    gate.stop()
    gate.start()
    container = gate.client().containers.get(str(container.id))
    container.start()
    gate.client("stop").containers.get(str(container.id)).stop()


def test_80_at_once_do_not_beat_the_cap(open_gate: OpenGate) -> None:
    gate, engine = open_gate(most="2")  # OWN is running already: three more may live
    engine.delay = 0.02

    def try_(number: int) -> bool:
        try:
            launch(gate.client(), run=f"{number:036x}")
        except docker.errors.APIError as error:
            if "429" not in str(error):
                raise
            return False
        return True

    with ThreadPoolExecutor(80) as pool:
        assert sum(pool.map(try_, range(80))) == 3
    assert sum(request.path.endswith("/create") for request in engine.requests) == 3


def test_an_ended_run_container_makes_room_and_does_not_come_back(open_gate: OpenGate) -> None:
    gate, _ = open_gate(most="1")
    container = launch(gate.client())
    with pytest.raises(docker.errors.APIError, match="2 run containers live already"):
        launch(gate.client())
    container.start()
    container.stop()
    launch(gate.client())
    with pytest.raises(docker.errors.APIError, match="it has run"):
        gate.client().containers.get(EXITED).start()


def test_the_last_lines_of_one_that_died_are_told_at_the_door_for_launching(gate: Gate) -> None:
    died = gate.client().containers.get(EXITED)
    assert (died.status, died.attrs["State"]["ExitCode"]) == ("exited", 137)
    assert died.logs(tail=20) == b"last\n"
    with pytest.raises(docker.errors.APIError, match="it has not ended"):
        gate.client().containers.get(OWN).logs(tail=20)
    with pytest.raises(docker.errors.APIError, match="not allowed"):
        gate.client("stop").containers.get(EXITED).logs(tail=20)


@pytest.mark.parametrize("end", ["well", "stopped", "died, read", "died, not read"])
@pytest.mark.parametrize("hiccups", [0, 1])
def test_a_run_container_is_removed_after_its_end(
    end: str, hiccups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "KEEP_ENDED", 0.1)
    monkeypatch.setattr(reaper, "KEEP_UNREAD", 1)
    engine = FakeEngine(tmp_path)
    (state_directory := tmp_path / "state").mkdir()
    engine.hiccups = hiccups
    state = engine.containers[OWN]["State"]
    state["ExitCode"] = 0 if end == "well" else 137

    async def live_and_die() -> float:
        async with Engine(engine.socket, "project") as client:
            runs = Runs(client, reaper.Reaper(client, state_directory), CodeServers(client), 4)
            runs.reaper.track(OWN)
            removal = runs.reaper.tasks[OWN]
            await asyncio.sleep(0.3)
            assert not removal.done()
            if end == "stopped":
                await runs.stop(b"", OWN, "1")
            state["Status"] = "exited"
            died = time.monotonic()
            if end == "died, read":
                await runs.logs(b"", OWN)
            await removal
            assert not runs.reaper.tasks
            assert not list(state_directory.iterdir())
            return time.monotonic() - died

    with ThreadPoolExecutor() as thread:  # this one has the browser's event loop
        took = thread.submit(asyncio.run, asyncio.wait_for(live_and_die(), 10)).result()
    assert OWN not in engine.containers
    assert len(engine.containers) == 4
    if not hiccups:  # after which the gate rests before it asks again
        assert (took > 1) is (end == "died, not read")
    engine.close()


def test_a_restarted_gate_knows_whose_last_lines_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "KEEP_ENDED", 0.1)
    engine = FakeEngine(tmp_path)
    (state := tmp_path / "state").mkdir()
    (state / "of-one-that-is-gone").touch()
    engine.containers[OWN]["State"].update(Status="exited", ExitCode=137)

    async def read_and_restart() -> None:
        for restarted in (False, True):
            async with Engine(engine.socket, "project") as client:
                runs = Runs(client, reaper.Reaper(client, state), CodeServers(client), 4)
                await runs.reaper.take_over()
                if restarted:
                    await runs.reaper.tasks[EXITED]
                    assert list(runs.reaper.tasks) == [OWN]  # for a day
                else:
                    await runs.logs(b"", EXITED)
                    assert [mark.name for mark in state.iterdir()] == [EXITED]
                for task in runs.reaper.tasks.values():
                    task.cancel()

    with ThreadPoolExecutor() as thread:  # this one has the browser's event loop
        thread.submit(asyncio.run, asyncio.wait_for(read_and_restart(), 10)).result()
    assert EXITED not in engine.containers
    assert OWN in engine.containers
    engine.close()


def test_of_too_many_failed_run_containers_the_first_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "KEEP_ENDED", 0.1)
    monkeypatch.setattr(reaper, "MOST_UNREAD", 2)
    engine = FakeEngine(tmp_path)
    failed = [f"{number}f" * 32 for number in range(5)]
    for id_ in failed:
        engine.add(id_, {LABEL: "project"}, "exited", code=137)

    async def fail_one_after_the_other() -> None:
        async with Engine(engine.socket, "project") as client:
            watcher = reaper.Reaper(client, tmp_path)
            for id_ in failed:
                watcher.track(id_)
                while id_ not in watcher.unread:
                    await asyncio.sleep(0.01)
            await asyncio.gather(*(watcher.tasks[id_] for id_ in failed[:3] if id_ in watcher.tasks))
            assert list(watcher.tasks) == failed[3:]
            for task in watcher.tasks.values():
                task.cancel()

    with ThreadPoolExecutor() as thread:  # this one has the browser's event loop
        thread.submit(asyncio.run, asyncio.wait_for(fail_one_after_the_other(), 10)).result()
    assert [id_ in engine.containers for id_ in failed] == [False, False, False, True, True]
    engine.close()


def test_a_restarted_gate_removes_what_ended_meanwhile(open_gate: OpenGate, tmp_path: Path) -> None:
    gate, engine = open_gate()
    container = launch(gate.client())
    container.start()
    gate.stop()
    engine.containers[container.id]["State"]["Status"] = "exited"
    gate.start()
    waited = [request.path for request in engine.requests if request.path.endswith("/wait")]
    for id_, times in ((container.id, 2), (OWN, 2), (EXITED, 2), (OTHER, 0), (FOREIGN, 0)):
        assert waited.count(f"/v1.41/containers/{id_}/wait") == times


def test_a_container_is_started_once_even_by_twenty_at_once(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    container = launch(gate.client())
    engine.delay = 2

    def try_(_: int) -> None:
        with pytest.raises(docker.errors.APIError, match="409"):
            gate.client().containers.get(str(container.id)).start()

    thread = threading.Thread(target=gate.client().containers.get(str(container.id)).start)
    thread.start()
    while not engine.requests[-1].path.endswith("/start"):
        time.sleep(0.005)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(try_, range(20)))
    thread.join()
    assert sum(request.path.endswith("/start") for request in engine.requests) == 1


def test_a_container_that_nobody_started_is_removed_in_the_end(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    engine.add("e" * 64, {LABEL: "project"}, "created", created=time.time() - 3600)
    engine.add("f" * 64, {LABEL: "another-project"}, "created", created=time.time() - 3600)
    fresh = launch(gate.client())
    launch(gate.client())
    assert "e" * 64 not in engine.containers
    assert {"f" * 64, fresh.id} <= engine.containers.keys()


HALF = b"POST /v1.41/containers/create HTTP/1.1\r\nHost: gate\r\nContent-Length: 65000\r\n\r\n{"


@pytest.mark.parametrize("begun", [b"", HALF, HALF + b" " * 60_000], ids=["nothing", "little", "much"])
def test_a_flood_of_half_open_requests_stops_no_run(open_gate: OpenGate, begun: bytes) -> None:
    """Dagit, hostile, opens as many as it can all the time; the daemon, broken, holds 500 open."""
    gate, _ = open_gate()
    done, opened = threading.Event(), []

    def open_half(door: str) -> None:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(1)
        try:
            client.connect(str(gate.doors[door]))
            opened.append(client)
            client.sendall(begun)
        except OSError:
            time.sleep(0.001)  # the gate is still busy with those before

    def flood() -> None:
        while not done.is_set():
            open_half("stop")

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(500):
            open_half("launch")
        for _ in range(3):
            container = launch(gate.client())
            container.start()
            container.stop()
        memory = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{gate.process.pid}/status").read_text())[0]) / 1024
    finally:
        done.set()
        for thread in threads:
            thread.join()
        for client in opened:
            client.close()
    assert memory < 160  # MiB; docker-compose.yml gives it 192


def test_the_first_that_waits_gives_way(gate: Gate) -> None:
    clients = []
    for _ in range(300):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(str(gate.doors["stop"]))
    time.sleep(1)
    for client, is_cut in ((clients[0], True), (clients[-1], False)):
        client.setblocking(False)
        try:
            assert client.recv(1) == b""
            assert is_cut
        except BlockingIOError:
            assert not is_cut
    for client in clients:
        client.close()


def test_every_decision_is_logged_and_no_secret_is(open_gate: OpenGate) -> None:
    gate, _ = open_gate()
    container = launch(gate.client())
    gate.send(b"POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 21\r\n\r\n{'x': 'hostile-mark'}")
    gate.send(f"GET /{MARK}\r\n hostile-mark rubbish".encode())
    gate.send(f"GET /info?password={MARK} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), "stop")
    lines = [line.split(" ", 2)[2] for line in gate.text().splitlines()]
    assert [re.sub(r"\d+ ms", "- ms", line).strip() for line in lines] == [
        "open: API 1.41, at most 8 runs of project-user_code",
        "launch 200 'GET /version' - ms",
        f"launch 201 'POST /v1.41/containers/create' - ms {container.id[:12]} run={RUN_ID}",
        f"launch 200 'GET /v1.41/containers/{container.id}/json' - ms",
        "launch 400 'POST /v1.41/containers/create' - ms refused: not JSON of the right form",
        "launch 400 refused: not HTTP",
        "stop 403 'GET /info' - ms refused: not allowed",
    ]
    assert SECRET not in gate.text()


def test_an_engine_that_is_gone_is_said_to_be(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    engine.close()
    Path(engine.socket).unlink()
    with pytest.raises(docker.errors.APIError, match="the engine does not answer"):
        gate.client().containers.get(OWN)


def test_latency(open_gate: OpenGate, capsys: pytest.CaptureFixture[str]) -> None:
    """What the gate adds to a call is less than 15 ms; measured before an engine that takes no time."""
    gate, engine = open_gate(most="1000")
    clients = {"engine": docker.DockerClient(f"unix://{engine.socket}", version="1.41"), "gate": gate.client()}
    took: dict[tuple[str, str], list[float]] = {}
    for name in list(clients) * 20:
        client = clients[name]
        began = time.perf_counter()
        client.api.version(api_version=False)
        versioned = time.perf_counter()
        container = launch(client)
        created = time.perf_counter()
        container.reload()
        inspected = time.perf_counter()
        container.start()
        times = {
            "version": versioned - began,
            "create and inspect": created - versioned,
            "inspect": inspected - created,
        }
        for call, seconds in {**times, "start": time.perf_counter() - inspected}.items():
            took.setdefault((call, name), []).append(seconds * 1000)
    medians = {call: [statistics.median(took[call, name]) for name in clients] for call, _ in took}
    with capsys.disabled():
        print("\n\nmilliseconds (median): engine, gate")
        for call, (engines, gates) in medians.items():
            print(f"  {call:20} {engines:7.1f} {gates:7.1f}")
    assert max(gates - engines for engines, gates in medians.values()) < 15, medians
