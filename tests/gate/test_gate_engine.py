"""The same on a real engine: what it has in the end is what was allowed, and no more."""

import io
import os
import statistics
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import docker
import pytest

from tests.gate.attacks import attacks
from tests.gate.conftest import Gate, description, launch
from tests.gate.engine import FOREIGN, LABEL, OWN, FakeEngine

BASE = "python:3.13-slim-trixie"
PROJECT_LABEL = "com.docker.compose.project"


class Deployment(NamedTuple):
    """A gate in front of the real engine, and what is needed to launch runs."""

    project: str
    image: str
    engine: docker.DockerClient
    gate: Gate

    def launch(self, client: docker.DockerClient) -> Any:
        """Create a run container."""
        return launch(client, description(self.project), f"{self.image}:latest", str(uuid.uuid4()))

    def runs(self) -> list[Any]:
        """List all run containers."""
        return list(
            self.engine.containers.list(all=True, filters={"label": f"{LABEL}={self.project}"}, ignore_removed=True)
        )

    def clear(self) -> None:
        """Remove all run containers."""
        ours = {"label": f"{PROJECT_LABEL}={self.project}"}
        for container in self.engine.containers.list(all=True, filters=dict(ours), ignore_removed=True):
            container.remove(force=True)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    try:
        engine = docker.from_env(timeout=120)
        engine.images.get(BASE)
    except docker.errors.DockerException as error:
        message = f"needs a Docker engine with the image {BASE}: {error}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    project = f"gate-test-{uuid.uuid4().hex[:8]}"
    image = f"{project}-user_code"
    # A stand-in for the user's code: its `dagster` sleeps.
    file = (
        f"FROM {BASE}\nRUN printf '#!/bin/sh\\nsleep 600' >/usr/local/bin/dagster && chmod +x /usr/local/bin/dagster\n"
    )
    engine.images.build(fileobj=io.BytesIO(file.encode()), tag=image, rm=True)
    network = engine.networks.create(f"{project}_runs")
    directory = tmp_path_factory.mktemp("gate")
    gate = Gate(directory, "/var/run/docker.sock", {image: description(project)}, project=project)
    made = Deployment(project, image, engine, gate)
    yield made
    gate.stop()
    made.clear()
    network.remove()
    for volume in engine.volumes.list():
        if volume.name.startswith(f"{project}_"):
            volume.remove()
    engine.images.remove(image)


def test_a_run_container_is_what_the_description_says(deployment: Deployment) -> None:
    container = deployment.launch(deployment.gate.client())
    container.start()
    real = deployment.engine.containers.get(container.id)
    host, config = real.attrs["HostConfig"], real.attrs["Config"]
    project = deployment.project
    assert config["Labels"][LABEL] == project
    assert config["User"] == "1000"
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"], host["ReadonlyRootfs"]) == (["ALL"], None, False, True)
    assert (host["Memory"], host["CpuQuota"], host["PidsLimit"]) == (2 << 30, 200_000, 512)
    assert host["NetworkMode"] == f"{project}_runs"
    assert sorted(host["Binds"]) == [
        f"{project}_data:/data",
        f"{project}_secret:/secret:ro",
        f"{project}_storage:/opt/dagster/storage",
    ]
    status = str(real.exec_run("cat /proc/1/status").output)
    assert r"CapEff:\t0000000000000000" in status
    assert r"CapBnd:\t0000000000000000" in status
    assert r"NoNewPrivs:\t1" in status
    at_stop = deployment.gate.client("stop").containers.get(container.id)
    assert at_stop.status == "running"
    at_stop.stop(timeout=1)
    for _ in range(900):
        if not deployment.runs():
            return
        time.sleep(0.1)
    raise AssertionError("stopped, the run container is not removed within 90 s")


def test_no_attack_leaves_a_trace(deployment: Deployment, tmp_path: Any) -> None:
    engine, gate, project = deployment.engine, deployment.gate, deployment.project
    own = deployment.launch(gate.client())
    allowed = engine.containers.get(own.id).attrs
    foreign = engine.containers.create(deployment.image, ["sleep", "600"], labels={PROJECT_LABEL: project})
    foreign.start()
    foreign.reload()
    before = {container.id for container in engine.containers.list(all=True, ignore_removed=True)}

    plain = FakeEngine(tmp_path)
    deployment.launch(docker.DockerClient(f"unix://{plain.socket}", version="auto"))
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
        if deployment.image in c.attrs["Config"]["Image"] or c.labels.get(PROJECT_LABEL) in (project, "another")
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
    deployment.clear()


def test_80_at_once_do_not_beat_the_cap(deployment: Deployment) -> None:
    def try_(_: int) -> bool:
        try:
            deployment.launch(deployment.gate.client())
        except docker.errors.APIError as error:
            if "429" not in str(error):
                raise
            return False
        return True

    with ThreadPoolExecutor(80) as pool:
        succeeded = sum(pool.map(try_, range(80)))
    assert succeeded == len(deployment.runs()) == 8
    deployment.clear()


def test_each_code_location_has_limits_of_its_own(deployment: Deployment, tmp_path: Path) -> None:
    second = f"{deployment.project}-second"
    deployment.engine.images.get(deployment.image).tag(second)
    texts = {
        deployment.image: description(deployment.project),
        second: description(deployment.project).replace('"mem_limit": "2g"', '"mem_limit": "64m"'),
    }
    gate = Gate(tmp_path, "/var/run/docker.sock", texts, project=deployment.project)
    try:
        memory = []
        for image, text in texts.items():
            run = launch(gate.client(), text, f"{image}:latest", str(uuid.uuid4()))
            memory.append(deployment.engine.api.inspect_container(run.id)["HostConfig"]["Memory"])
        assert memory == [2 << 30, 64 << 20]
        with pytest.raises(docker.errors.APIError, match="not as described: HostConfig"):
            launch(gate.client(), texts[deployment.image], f"{second}:latest")
    finally:
        gate.stop()
        deployment.clear()
        deployment.engine.images.remove(second)


def test_latency(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """What the gate adds to a call is less than 100 ms before the real engine."""
    clients = {"engine": deployment.engine, "gate": deployment.gate.client()}
    took: dict[tuple[str, str], list[float]] = {}
    for name in list(clients) * 5:
        api, container = clients[name].api, None
        for call in ("version", "create", "inspect", "start", "stop"):
            began = time.perf_counter()
            if call == "version":
                api.version(api_version=False)
            elif call == "create":
                container = deployment.launch(clients[name])
            else:
                assert container is not None
                {"inspect": container.reload, "start": container.start, "stop": lambda c=container: c.stop(timeout=1)}[
                    call
                ]()
            took.setdefault((call, name), []).append((time.perf_counter() - began) * 1000)
    medians = {call: [statistics.median(took[call, name]) for name in clients] for call, _ in took}
    with capsys.disabled():
        print("\n\nmilliseconds (median): engine, gate")
        for call, (engines, gates) in medians.items():
            print(f"  {call:10} {engines:7.1f} {gates:7.1f}")
    assert max(gates - engines for engines, gates in medians.values()) < 100, medians
