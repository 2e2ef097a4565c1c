"""The gate stays shut behind an unsafe description of a run container, and says which line to change."""

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gate import description as descriptions
from gate.template import Template

from tests.gate.conftest import GATE, IMAGE, description, settings
from tests.gate.engine import FakeEngine

MISSING = object()


def changed(key: str, value: Any) -> str:
    """Return our description with one thing changed, a line for each."""
    whole = copy.deepcopy(json.loads(description()))
    part = (
        whole["docker"]
        if key in ("env_vars", "networks", "container_kwargs", "registry")
        else whole["docker"]["container_kwargs"]
    )
    if value is MISSING:
        part.pop(key)
    else:
        part[key] = value
    return json.dumps(whole, indent=1)


def test_ours_is_safe() -> None:
    variables, network, kwargs = descriptions.check(description())
    assert "PGPASSFILE" in variables
    assert network == "project_runs"
    assert kwargs["user"] == "1000"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("init", MISSING),
        ("labels", {"team": "data", "owner": 'said "Ünï" \\ of'}),
        ("labels", MISSING),
        ("user", "1000:1000"),
        ("mem_limit", "500m"),
        ("stop_timeout", 30),
        ("shm_size", "1g"),
        ("tmpfs", {"/tmp": "size=1g,uid=1000,gid=1000", "/opt/x.y": "mode=1777"}),
        ("volumes", []),
        ("volumes", ["data:/data", "a.b-c_d:/x/y:rw"]),
        ("env_vars", []),
        ("env_vars", ["A", "B=", 'C={"a": "b=c"}']),
        ("log_config", {"type": "local", "config": {"max-size": "5m", "max-file": "2"}}),
    ],
)
def test_safe(key: str, value: Any) -> None:
    Template(IMAGE, changed(key, value), "1.44")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_remove", True),
        ("privileged", True),
        ("privileged", False),
        ("cap_add", ["SYS_ADMIN"]),
        ("cap_drop", MISSING),
        ("cap_drop", []),
        ("cap_drop", ["NET_RAW"]),
        ("user", MISSING),
        ("user", "root"),
        ("user", "0"),
        ("user", "1000:0"),
        ("user", ""),
        ("user", 1000),
        ("security_opt", MISSING),
        ("security_opt", ["seccomp=unconfined"]),
        ("security_opt", ["no-new-privileges:true", "apparmor=unconfined"]),
        ("security_opt", ["no-new-privileges:false"]),
        ("read_only", MISSING),
        ("read_only", False),
        ("mem_limit", MISSING),
        ("mem_limit", "0"),
        ("mem_limit", -1),
        ("mem_limit", ""),
        ("cpu_quota", MISSING),
        ("cpu_quota", 0),
        ("cpu_quota", 1.5),
        ("cpu_quota", True),
        ("pids_limit", MISSING),
        ("pids_limit", -1),
        ("log_config", MISSING),
        ("log_config", {"type": "json-file", "config": {}}),
        ("log_config", {"type": "syslog", "config": {"max-size": "1m"}}),
        ("networks", MISSING),
        ("networks", []),
        ("networks", ["host"]),
        ("networks", ["bridge"]),
        ("networks", ["container:x"]),
        ("networks", ["a", "b"]),
        ("network_mode", "host"),
        ("pid_mode", "host"),
        ("ipc_mode", "host"),
        ("uts_mode", "host"),
        ("userns_mode", "host"),
        ("cgroupns", "host"),
        ("volumes", ["/:/host"]),
        ("volumes", ["/var/run/docker.sock:/var/run/docker.sock"]),
        ("volumes", ["./data:/data"]),
        ("volumes", ["../data:/data"]),
        ("volumes", ["~/data:/data"]),
        ("volumes", ["C:\\data:/data"]),
        ("volumes", ["data:/data:rw,rshared"]),
        ("volumes", ["data:/data", "/etc:/etc:ro"]),
        ("volumes", {"/": {"bind": "/host"}}),
        ("mounts", [{"Type": "bind"}]),
        ("volumes_from", ["x"]),
        ("devices", ["/dev/sda"]),
        ("device_requests", []),
        ("group_add", ["docker"]),
        ("sysctls", {"a": "b"}),
        ("runtime", "x"),
        ("entrypoint", "sh"),
        ("name", "x"),
        ("ports", {"80/tcp": 80}),
        ("restart_policy", {"Name": "always"}),
        ("tmpfs", {"/tmp": "size=1g\nexec"}),
        ("tmpfs", ["/tmp"]),
        ("labels", ["a"]),
        ("labels", {"a": 1}),
        ("init", "yes"),
        ("env_vars", MISSING),
        ("env_vars", ["A B"]),
        ("env_vars", ["=x"]),
        ("env_vars", ["A=x\0B=y"]),
        ("registry", {"url": "x", "username": "x", "password": "x"}),
        ("no_such_thing", 1),
        ("oom_kill_disable", True),
        ("cgroup_parent", "/"),
        ("storage_opt", {"size": "1g"}),
        ("ulimits", []),
        ("extra_hosts", {"x": "host-gateway"}),
        ("dns", ["192.0.2.1"]),
        ("publish_all_ports", True),
        ("healthcheck", {"test": "id"}),
    ],
)
def test_unsafe(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf'(add|change|remove) "{key}":'):
        Template(IMAGE, changed(key, value), "1.41")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "{}", '{"docker": {}}', '{"docker": []}', '{"docker": {"container_kwargs": []}}'),
        description().replace('"user": "1000"', '"user": "1000", "user": "0"'),
        description().replace('"read_only"', '"privileged": false, "PRIVILEGED": true, "read_only"'),
        description()[:-2] + ', "k8s": {}}',
    ],
)
def test_not_a_description(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - it may be JSON's own
        Template(IMAGE, text, "1.41")


def test_all_lines_to_change_are_named_at_once() -> None:
    text = (
        description()
        .replace('"user": "1000",', '"user": "root",\n"privileged": true,')
        .replace('"read_only": true,', "")
    )
    with pytest.raises(ValueError, match="change") as raised:
        descriptions.check(text)
    assert str(raised.value).splitlines() == [
        '  add "read_only": true',
        '  change "user": "root", into the like of "user": "1000", the number of a user other than root',
        '  remove "privileged": true,',
    ]


def start(tmp_path: Path, text: str, most: str = "4") -> str:
    """Start a gate that does not open; return what it says."""
    engine = FakeEngine(tmp_path)
    environment = settings(tmp_path, engine.socket, most)
    done = subprocess.run(
        [*GATE, IMAGE, text], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    engine.close()
    assert done.returncode == 1
    assert not done.stdout
    return done.stderr.strip()


def test_the_gate_stays_shut(tmp_path: Path) -> None:
    assert start(tmp_path, changed("privileged", True)) == (
        "The gate stays shut. In docker-compose.yml, where runs of project-user_code are described:\n"
        '  remove "privileged": true'
    )


@pytest.mark.parametrize("most", ["", "many", "-1", "1.5", "99999"])
def test_the_gate_stays_shut_without_a_limit(tmp_path: Path, most: str) -> None:
    said = start(tmp_path, description(), most)
    assert said == "The gate stays shut. Set MAX_CONCURRENT_RUNS in .env to a whole number, such as 4."


def test_the_gate_stays_shut_without_an_engine(tmp_path: Path) -> None:
    environment, command = settings(tmp_path, str(tmp_path / "none")), [*GATE, IMAGE, description()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr.startswith("The gate stays shut. No Docker engine answers: ")
    assert done.returncode == 1
