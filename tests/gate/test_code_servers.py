"""A run's container is made like its code server's, unless that would give runs more than code may have."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from gate import template

from tests.gate.conftest import GATE, IMAGE, Gate, launch, settings
from tests.gate.engine import CODE_SERVER, SERVER, FakeEngine

OpenGate = Callable[..., tuple[Gate, FakeEngine]]
MEMORY = "deployable-dagster.run.memory"
LABELS = CODE_SERVER["Config"]["Labels"]


def bind(source: str, target: str = "/x") -> dict[str, Any]:
    """Return what the engine tells of a mounted directory of the host."""
    return {"Type": "bind", "Source": source, "Destination": target}


def volume(name: str, target: str = "/x") -> dict[str, Any]:
    """Return what the engine tells of a mounted volume."""
    return {"Type": "volume", "Name": name, "Source": f"/var/lib/docker/volumes/{name}/_data", "Destination": target}


def problems(part: str, key: str, value: Any) -> list[str]:
    """Return what is wrong with a code server of which one thing is changed."""
    server = CODE_SERVER | {part: value} if part == key else CODE_SERVER | {part: CODE_SERVER[part] | {key: value}}
    return template.find_problems(server, {"on_root": "/", "on_srv": "/srv"})


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("Config", "User", "1000:1000"),
        ("Config", "User", "10001"),
        ("Config", "Labels", {**LABELS, MEMORY: "500m"}),
        ("HostConfig", "SecurityOpt", ["no-new-privileges"]),
        ("HostConfig", "SecurityOpt", ["no-new-privileges=true", "seccomp={}"]),
        ("HostConfig", "ReadonlyRootfs", False),
        ("HostConfig", "Devices", [{"PathOnHost": "/dev/dri", "PathInContainer": "/dev/dri"}]),
        ("HostConfig", "CapAdd", []),
        ("Mounts", "Mounts", []),
        *(
            ("Mounts", "Mounts", [bind(path)])
            for path in ("/srv", "/home/x", "/etc/ssl/certs", "/mnt/run", "/data/docker")
        ),
        ("Mounts", "Mounts", [volume("on_srv"), volume("project_data"), volume("other_postgres")]),
        ("Mounts", "Mounts", [volume("project_user_code", "/run/user_code")]),
        ("NetworkSettings", "Networks", {"project_runs": {}, "other_database": {}}),
    ],
)
def test_safe(part: str, key: str, value: Any) -> None:
    assert problems(part, key, value) == []


@pytest.mark.parametrize(
    ("part", "key", "value", "setting"),
    [
        *(("Config", "User", user, "user") for user in ("", "0", "root", "0:0", "1000:0", "dagster", "1000:docker")),
        ("HostConfig", "Privileged", True, "privileged"),
        ("HostConfig", "CapAdd", ["SYS_ADMIN"], "cap_add"),
        *(("HostConfig", "CapDrop", dropped, "cap_drop") for dropped in (None, [], ["NET_RAW"])),
        *(
            ("HostConfig", "SecurityOpt", options, "security_opt")
            for options in (None, [], ["no-new-privileges:false"])
        ),
        *(
            ("HostConfig", "SecurityOpt", ["no-new-privileges:true", option], "security_opt")
            for option in ("seccomp=unconfined", "apparmor:unconfined", "systempaths=unconfined", "label=disable")
        ),
        *(
            ("HostConfig", key, value, setting)
            for key, setting in (
                ("PidMode", "pid"),
                ("IpcMode", "ipc"),
                ("UTSMode", "uts"),
                ("UsernsMode", "userns_mode"),
            )
            for value in ("host", f"container:{SERVER}")
        ),
        *(
            ("HostConfig", "NetworkMode", mode, "network_mode")
            for mode in ("host", "none", "bridge", "default", f"container:{SERVER}", "ns:/proc/1/ns/net")
        ),
        *(
            ("Mounts", "Mounts", [bind(path)], "volumes")
            for path in (
                *("/", "//", "/var", "/var/run", "/run", "/etc", "/etc/", "/proc", "/proc/1/root", "/sys/fs/cgroup"),
                *("/dev", "/root", "/boot", "/var/lib", "/var/lib/docker", "/var/run/docker.sock", "/run/docker.sock"),
                *("/home/x/.docker/run/docker.sock", "/run/user/1000/podman/podman.sock", "/srv/../", "/etc/."),
            )
        ),
        ("Mounts", "Mounts", [bind("/srv"), bind("/etc")], "volumes"),
        ("Mounts", "Mounts", [volume("on_root")], "volumes"),
        *(
            ("Mounts", "Mounts", [volume(f"project_{own}")], "volumes")
            for own in ("launch", "stop", "gate", "postgres", "edge", "user_code")
        ),
        *(
            ("NetworkSettings", "Networks", {"project_runs": {}, f"project_{own}": {}}, "network")
            for own in ("database", "published")
        ),
        *(
            ("Config", "Labels", {**LABELS, label: value}, label)
            for label, values in {
                MEMORY: ("", "0", "0g", "-1g", "2", "2 GB", "1.5g", "2g\n"),
                "deployable-dagster.run.cpu-percent": ("", "0", "-1", "1.5", "many"),
                "deployable-dagster.run.pids": ("", "0", "-1", "0x10"),
                f"{MEMORY}-max": ("", "0g", "2 GB"),
                "deployable-dagster.run.cpu-percent-max": ("", "1.5"),
                "deployable-dagster.run.pids-max": ("", "many"),
            }.items()
            for value in values
        ),
    ],
)
def test_unsafe(part: str, key: str, value: Any, setting: str) -> None:
    (problem,) = problems(part, key, value)
    assert setting in problem


def test_an_unsafe_code_server_launches_nothing(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    engine.add_code_server("e2" * 32, created=1, HostConfig={"Privileged": True, "PidMode": "host"})
    with pytest.raises(
        docker.errors.APIError, match=r'user_code in docker-compose\.yml: remove "privileged"; remove "pid"'
    ):
        launch(gate.client())
    assert not [request for request in engine.requests if request.path.endswith("/create")]


def created(engine: FakeEngine) -> dict[str, Any]:
    """Return the last create request."""
    return dict([request.json for request in engine.requests if request.path.endswith("/create")][-1])


def test_a_run_is_made_like_the_newest_running_code_server_of_its_image(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    launch(gate.client())
    limits = {**LABELS, MEMORY: "3g"}
    engine.add_code_server("e2" * 32, created=1, Config={"Labels": limits, "Env": ["NEW=yes"]})
    engine.add_code_server("e3" * 32, created=2, State={"Status": "exited"}, Config={"Env": ["NEW=no"]})
    other = {**LABELS, "com.docker.compose.service": "reports", MEMORY: "64m"}
    engine.add_code_server("e4" * 32, created=3, Config={"Labels": other, "Image": "registry:5000/reports:7"})
    one_off = {**LABELS, "com.docker.compose.oneoff": "True"}
    engine.add_code_server("e5" * 32, created=4, Config={"Labels": one_off, "Env": ["NEW=no"]})
    elsewhere = {**LABELS, "com.docker.compose.project": "other"}
    engine.add_code_server("e6" * 32, created=5, Config={"Labels": elsewhere, "Env": ["NEW=no"]})
    launch(gate.client())
    assert created(engine)["Env"] == ["PYTHON_CPU_COUNT=2", "NEW=yes", "DAGSTER_RUN_JOB_NAME=clean_string_job"]
    assert created(engine)["HostConfig"]["Memory"] == 3 << 30
    launch(gate.client(), "registry:5000/reports:8")
    assert created(engine)["HostConfig"]["Memory"] == 64 << 20
    assert created(engine)["Labels"]["com.docker.compose.service"] == "reports"


MAXIMA = {
    f"{MEMORY}-max": "8g",
    "deployable-dagster.run.cpu-percent-max": "400",
    "deployable-dagster.run.pids-max": "1000",
}
RAISED = {"Labels": {**LABELS, **MAXIMA}}
ENV = CODE_SERVER["Config"]["Env"]


@pytest.mark.parametrize(
    ("asked", "limits", "cpu_count"),
    [
        ({}, (2 << 30, 150_000, 512), 2),
        ({"mem_limit": 1}, (1, 150_000, 512), 2),
        ({"mem_limit": 8 << 30}, (8 << 30, 150_000, 512), 2),
        ({"cpu_quota": 10_000}, (2 << 30, 10_000, 512), 1),
        ({"cpu_quota": 250_000, "pids_limit": 1000}, (2 << 30, 250_000, 1000), 3),
        ({"cpu_quota": 400_000, "pids_limit": 1, "mem_limit": 300 << 20}, (300 << 20, 400_000, 1), 4),
    ],
)
def test_a_run_may_ask_for_limits_of_its_own(
    asked: dict[str, Any], limits: tuple[int, int, int], cpu_count: int, open_gate: OpenGate
) -> None:
    gate, engine = open_gate()
    engine.add_code_server("e2" * 32, created=1, Config=RAISED)
    launch(gate.client(), **asked)
    host = created(engine)["HostConfig"]
    assert (host["Memory"], host["CpuQuota"], host["PidsLimit"]) == limits
    assert host["MemorySwap"] == host["Memory"]
    assert created(engine)["Env"][0] == f"PYTHON_CPU_COUNT={cpu_count}"
    launch(gate.client())  # another run is none of its business
    host = created(engine)["HostConfig"]
    assert (host["Memory"], host["CpuQuota"], host["PidsLimit"]) == (2 << 30, 150_000, 512)


def test_a_cpu_count_of_the_operators_own_stays(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    engine.add_code_server("e2" * 32, created=1, Config={**RAISED, "Env": [*ENV, "PYTHON_CPU_COUNT=7"]})
    launch(gate.client(), cpu_quota=300_000)
    assert [variable for variable in created(engine)["Env"] if "CPU_COUNT" in variable] == ["PYTHON_CPU_COUNT=7"]


@pytest.mark.parametrize(
    ("labels", "asked", "said"),
    [
        (MAXIMA, {"mem_limit": (8 << 30) + 1}, ["docker/memory", "8589934593b", "8g", "RUN_MEMORY_MAX"]),
        (MAXIMA, {"mem_limit": 9 << 30}, ["docker/memory", "asks for 9g", "8g", "RUN_MEMORY_MAX"]),
        (MAXIMA, {"cpu_quota": 450_000}, ["docker/cpus", "asks for 4.5", "4 is", "RUN_CPU_PERCENT_MAX"]),
        (MAXIMA, {"pids_limit": 1001}, ["docker/pids", "asks for 1001", "1000", "RUN_PIDS_MAX"]),
        ({}, {"mem_limit": 2049 << 20}, ["asks for 2049m", "2g is the most"]),
        ({}, {"cpu_quota": 160_000}, ["asks for 1.6", "1.5 is the most"]),
        ({}, {"pids_limit": 513}, ["asks for 513", "512 is the most"]),
        ({}, {"mem_limit": 1 << 20, "pids_limit": 513}, ["asks for 513"]),
    ],
)
def test_a_run_that_asks_for_more_than_the_maximum_is_refused_with_both_figures(
    labels: dict[str, str], asked: dict[str, Any], said: list[str], open_gate: OpenGate
) -> None:
    gate, engine = open_gate()
    engine.add_code_server("e2" * 32, created=1, Config={"Labels": {**LABELS, **labels}})
    with pytest.raises(docker.errors.APIError, match="403") as raised:
        launch(gate.client(), **asked)
    assert all(words in str(raised.value.explanation) for words in said), raised.value.explanation
    assert not [request for request in engine.requests if request.path.endswith("/create")]


def test_without_a_running_code_server_a_run_has_to_wait(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    for gone in (
        lambda: engine.containers[SERVER]["State"].update(Status="exited"),
        lambda: engine.containers.pop(SERVER),
    ):
        gone()
        with pytest.raises(docker.errors.APIError, match=r"503 .*no code server of this image is running"):
            launch(gate.client())
    engine.add_code_server("e2" * 32)
    launch(gate.client())
    with pytest.raises(docker.errors.APIError, match=r"403 .*not the image of a code location"):
        launch(gate.client(), "project-dagster:1")


def test_a_run_that_cannot_join_all_networks_is_not_created(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    engine.networks_exist = False
    before = set(engine.containers)
    with pytest.raises(docker.errors.APIError, match="network not found") as raised:
        launch(gate.client())
    assert not isinstance(raised.value, docker.errors.NotFound)  # which the launcher takes for a reason to pull
    assert set(engine.containers) == before


def start(tmp_path: Path, engine: str, most: str = "4", code: int = 1, **more: str) -> str:
    """Start a gate that does not open; return what it says."""
    environment = settings(tmp_path, engine, most) | more
    done = subprocess.run(GATE, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    return done.stderr.strip()


def test_the_gate_stays_shut_before_an_unsafe_code_server(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    engine.add_code_server("e2" * 32, created=1, HostConfig={"Privileged": True}, State={"Status": "created"})
    engine.volumes["project_data"] = {"type": "none", "o": "bind", "device": "/etc"}
    assert start(tmp_path, engine.socket).splitlines() == [
        "The gate refuses to start. In docker-compose.yml, change the services whose code runs execute:",
        '  user_code: remove "privileged"',
        '  user_code: remove "/etc" from "volumes": whoever has it owns the host',
    ]
    engine.close()


def test_one_container_can_be_checked_before_anything_is_replaced(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    assert start(tmp_path, engine.socket, code=0, CHECK_ONLY=SERVER) == ""
    engine.add_code_server("e2" * 32, created=1, HostConfig={"CapAdd": ["SYS_ADMIN"]})
    assert start(tmp_path, engine.socket, CHECK_ONLY="e2" * 32).splitlines()[1:] == ['  user_code: remove "cap_add"']
    assert start(tmp_path, engine.socket, code=0, CHECK_ONLY=SERVER) == ""
    engine.close()


@pytest.mark.parametrize("most", ["", "many", "-1", "1.5", "99999"])
def test_the_gate_stays_shut_without_a_limit(tmp_path: Path, most: str) -> None:
    engine = FakeEngine(tmp_path)
    said = start(tmp_path, engine.socket, most)
    assert said == "The gate refuses to start. Set MAX_CONCURRENT_RUNS in .env to a whole number, such as 4."
    engine.close()


def test_the_gate_stays_shut_without_an_engine(tmp_path: Path) -> None:
    assert start(tmp_path, str(tmp_path / "none")).startswith("The gate refuses to start. No Docker engine answers: ")


def test_the_gate_opens_before_there_is_a_code_server(open_gate: OpenGate) -> None:
    gate, engine = open_gate()
    engine.containers.pop(SERVER)
    gate.stop()
    gate.start()
    engine.add_code_server(SERVER)
    launch(gate.client(), f"{IMAGE}:latest")
