"""The same on a real engine: what it has in the end is what was allowed, and no more."""

import io
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import docker
import pytest
from gate import template

from tests.gate.attacks import attacks
from tests.gate.conftest import ROOT, Gate, launch
from tests.gate.engine import FOREIGN, LABEL, OWN, FakeEngine
from tests.stack import BASE_IMAGES

BASE = BASE_IMAGES[0]
PROJECT_LABEL = "com.docker.compose.project"


# What an operator may add to user_code.
ADDED = """
services:
  user_code:
    command: [sleep, "600"]
    healthcheck: {{ disable: true }}
    env_file: [{directory}/pipeline.env]
    extra_hosts: ["warehouse.example:192.0.2.1"]
    group_add: ["44"]
    networks: [runs, warehouse]
    volumes: ["{directory}/input:/input:ro", "archive:/archive", /scratch]
    secrets: [token]
networks: {{ warehouse: }}
volumes:
  archive: {{ driver_opts: {{ type: none, o: bind, device: "{directory}/archive" }} }}
secrets:
  token: {{ file: "{directory}/token" }}
"""


class Launching(NamedTuple):
    """A gate and a code server on the real engine, and what is needed to launch runs."""

    project: str
    image: str
    engine: docker.DockerClient
    gate: Gate
    directory: Path

    def launch(self, client: docker.DockerClient) -> Any:
        """Create a run container."""
        return launch(client, f"{self.image}:latest", str(uuid.uuid4()))

    def compose(self, *args: str, **settings: str) -> None:
        """Call Compose on the project's own file and what the operator added."""
        files = ["--file", str(ROOT / "docker-compose.yml"), "--file", str(self.directory / "added.yml")]
        command = ["docker", "compose", "--env-file", os.devnull, "--project-name", self.project, *files, *args]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def runs(self) -> list[Any]:
        """List all run containers."""
        return list(
            self.engine.containers.list(all=True, filters={"label": f"{LABEL}={self.project}"}, ignore_removed=True)
        )

    def clear(self) -> None:
        """Remove all run containers."""
        for container in self.runs():
            container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def launching(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launching]:
    engine = docker.from_env(timeout=120)
    project = f"gate-test-{uuid.uuid4().hex[:8]}"
    image = f"{project}-user_code"
    # A stand-in for the user's code: its `dagster` sleeps.
    script = "RUN printf '#!/bin/sh\\nsleep 600' >/usr/local/bin/dagster && chmod +x /usr/local/bin/dagster"
    file = f"FROM {BASE}\n{script}\nENV MODE=of-the-image\nUSER 1000\n"
    engine.images.build(fileobj=io.BytesIO(file.encode()), tag=image, rm=True)
    directory = tmp_path_factory.mktemp("gate")
    for name in ("input", "archive"):
        (directory / name).mkdir()
        (directory / name / "file").write_text(f"in {name}")
    (directory / "token").write_text("secret token")
    (directory / "pipeline.env").write_text("GREETING='it is $5, \"ünï\"'\nMODE=of-the-operator\n")
    (directory / "added.yml").write_text(ADDED.format(directory=directory))
    made = Launching(project, image, engine, Gate(directory, "/var/run/docker.sock", project=project), directory)
    try:
        made.compose("up", "--detach", "--no-deps", "--no-build", "user_code")
        yield made
    finally:
        made.gate.stop()
        made.clear()
        made.compose("down", "--volumes", "--remove-orphans")
        engine.images.remove(image)


def test_a_run_container_is_like_its_code_server(launching: Launching) -> None:
    container = launching.launch(launching.gate.client())
    container.start()
    real = launching.engine.containers.get(container.id)
    host, config = real.attrs["HostConfig"], real.attrs["Config"]
    project = launching.project
    assert config["Labels"][LABEL] == project
    assert config["User"] == "1000"
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False)
    assert (host["Memory"], host["CpuQuota"], host["PidsLimit"]) == (2 << 30, 200_000, 512)
    assert (host["RestartPolicy"]["Name"], host["AutoRemove"]) == ("", False)
    assert set(real.attrs["NetworkSettings"]["Networks"]) == {f"{project}_runs", f"{project}_warehouse"}
    mounts = {mount["Destination"]: (mount["Type"], mount.get("Name"), mount["RW"]) for mount in real.attrs["Mounts"]}
    scratch = mounts.pop("/scratch")[1]
    assert mounts == {
        "/data": ("volume", f"{project}_data", True),
        "/opt/dagster/storage": ("volume", f"{project}_storage", True),
        "/secret": ("volume", f"{project}_secret", False),
        "/archive": ("volume", f"{project}_archive", True),
        "/input": ("bind", None, False),
        "/run/secrets/token": ("bind", None, False),
    }
    (server,) = launching.engine.containers.list(filters={"label": [f"{PROJECT_LABEL}={project}", template.MEMORY]})
    assert host["ReadonlyRootfs"] == server.attrs["HostConfig"]["ReadonlyRootfs"]
    assert scratch not in [mount.get("Name") for mount in server.attrs["Mounts"]]  # each has one of its own

    def told(command: str) -> str:
        _, output = real.exec_run(["sh", "-c", command])
        assert isinstance(output, bytes)
        return output.decode().strip()

    assert told("cat /input/file /archive/file /run/secrets/token") == "in inputin archivesecret token"
    assert told("getent hosts warehouse.example").split() == ["192.0.2.1", "warehouse.example"]
    assert told('echo "$GREETING $MODE $DAGSTER_RUN_JOB_NAME"') == ('it is $5, "ünï" of-the-operator clean_string_job')
    assert "44" in told("id -G").split()
    status = told("cat /proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    at_stop = launching.gate.client("stop").containers.get(container.id)
    assert at_stop.status == "running"
    at_stop.stop(timeout=1)
    for _ in range(900):
        if not launching.runs():
            return
        time.sleep(0.1)
    raise AssertionError("stopped, the run container is not removed within 90 s")


def test_no_attack_leaves_a_trace(launching: Launching, tmp_path: Any) -> None:
    engine, gate, project = launching.engine, launching.gate, launching.project
    own = launching.launch(gate.client())
    allowed = engine.containers.get(own.id).attrs
    foreign = engine.containers.create(launching.image, ["sleep", "600"], labels={PROJECT_LABEL: project})
    foreign.start()
    foreign.reload()
    before = {container.id for container in engine.containers.list(all=True, ignore_removed=True)}

    plain = FakeEngine(tmp_path)
    launching.launch(docker.DockerClient(f"unix://{plain.socket}", version="auto"))
    asked = next(request.json for request in plain.requests if request.path.endswith("/create"))
    plain.close()
    version = gate.client().api.version(api_version=False)["ApiVersion"]
    tried = 0
    for attack in attacks(asked, version):
        # Those that may end with one's own container stopped, or a good one created, are for the recording engine.
        if attack.family in ("slow and huge", "smuggling"):
            continue
        raw = attack.raw.replace(FOREIGN.encode(), str(foreign.id).encode())
        gate.send(raw.replace(OWN.encode(), own.id.encode()), attack.door)
        tried += 1
    assert tried > 600

    new = [
        container for container in engine.containers.list(all=True, ignore_removed=True) if container.id not in before
    ]
    ours = [
        c
        for c in new
        if launching.image in c.attrs["Config"]["Image"] or c.labels.get(PROJECT_LABEL) in (project, "another")
    ]
    assert not ours
    was = foreign.attrs
    foreign.reload()
    assert (foreign.attrs["State"], foreign.name) == (was["State"], was["Name"].lstrip("/"))
    now = engine.containers.get(own.id).attrs
    assert (now["HostConfig"], now["Config"], now["State"]) == (
        allowed["HostConfig"],
        allowed["Config"],
        allowed["State"],
    )
    assert "x" not in [volume.name for volume in engine.volumes.list()]
    foreign.remove(force=True)
    launching.clear()


def test_80_at_once_do_not_beat_the_cap(launching: Launching) -> None:
    def try_(_: int) -> bool:
        try:
            launching.launch(launching.gate.client())
        except docker.errors.APIError as error:
            if "429" not in str(error):
                raise
            return False
        return True

    with ThreadPoolExecutor(80) as pool:
        succeeded = sum(pool.map(try_, range(80)))
    assert succeeded == len(launching.runs()) == 8
    launching.clear()


def test_changed_limits_reach_runs_that_were_asked_for_before(launching: Launching) -> None:
    """What a client asks for says nothing of limits, so a run that was queued before gets the new ones."""
    launching.compose("up", "--detach", "--no-deps", "--no-build", "user_code", RUN_MEMORY="300m", RUN_PIDS="99")
    run = launching.launch(launching.gate.client())
    host = launching.engine.api.inspect_container(run.id)["HostConfig"]
    assert (host["Memory"], host["PidsLimit"]) == (300 << 20, 99)
    launching.clear()


def test_each_code_location_has_limits_of_its_own(launching: Launching) -> None:
    engine, second = launching.engine, f"{launching.project}-second"
    engine.images.get(launching.image).tag(second)
    (first,) = engine.containers.list(filters={"label": [f"{PROJECT_LABEL}={launching.project}", template.MEMORY]})
    labels = {**first.labels, "com.docker.compose.service": "second", template.MEMORY: "64m"}
    server = engine.containers.run(
        second,
        "sleep 600",
        labels=labels,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        network=f"{launching.project}_runs",
        detach=True,
    )
    try:
        client = launching.gate.client()
        runs = [launch(client, f"{image}:latest", str(uuid.uuid4())) for image in (launching.image, second)]
        limits = [engine.api.inspect_container(run.id)["HostConfig"]["Memory"] for run in runs]
        assert limits[1] == 64 << 20
        assert limits[0] > limits[1]
    finally:
        launching.clear()
        server.remove(force=True)
        engine.images.remove(second)
