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
