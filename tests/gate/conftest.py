"""The gate, running in front of an engine."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.gate.engine import FakeEngine

ROOT = Path(__file__).parents[2]
GATE = [sys.executable, "-m", "gate"]
IMAGE = "project-user_code"
TAGGED = f"{IMAGE}:1a2b3c4d5e6f-dirty-0a1b2c3d"
RUN_ID = "01234567-89ab-cdef-0123-456789abcdef"
ARGUMENTS = {"__class__": "ExecuteRunArgs", "instance_ref": None, "pipeline_run_id": RUN_ID}


def settings(directory: Path, engine: str, most: str = "4", project: str = "project") -> dict[str, str]:
    """Return the environment of a gate that keeps all it has in a directory."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "deploy"),
        "ENGINE_SOCKET": engine,
        "GATE_SOCKETS": str(directory),
        "GATE_STATE": str(directory / "state"),
        "PROJECT": project,
        "MAX_CONCURRENT_RUNS": most,
    }


class Gate:
    """The gate as a process of its own, with its doors in a directory."""

    def __init__(self, directory: Path, engine: str, most: str = "4", project: str = "project") -> None:
        """Start it in front of the engine with this socket."""
        self.doors = {name: directory / name / "docker.sock" for name in ("launch", "stop")}
        for path in (directory / "launch", directory / "stop", directory / "state"):
            path.mkdir(exist_ok=True)
        self.log = directory / "gate.log"
        self.environment = settings(directory, engine, most, project)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it is open."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(GATE, env=self.environment, stdout=log, stderr=log)
        opened = self.text().count("open: API")
        for _ in range(200):
            if self.text().count("open: API") > opened:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the gate did not open; its log ends in:\n{self.text()[-2000:]}")

    def stop(self) -> None:
        """Stop it as the engine does."""
        self.process.terminate()
        self.process.wait(20)

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text()

    def client(self, door: str = "launch") -> docker.DockerClient:
        """Return docker-py at one of its doors."""
        return docker.DockerClient(f"unix://{self.doors[door]}", version="auto", timeout=30)

    def send(self, raw: bytes, door: str = "launch", patience: float = 15) -> bytes:
        """Send bytes to a door; return all that it answers until it closes."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(patience)
            client.connect(str(self.doors[door]))
            answer = b""
            try:
                client.sendall(raw)
                while part := client.recv(65536):
                    answer += part
            except (BrokenPipeError, ConnectionResetError):
                pass  # it had heard enough
            return answer


def launch(client: docker.DockerClient, image: str = TAGGED, run: str = RUN_ID, **limits: Any) -> Any:
    """Create a run container as DockerRunLauncher does, with limits that docker-py knows by these names."""
    return client.containers.create(
        image=image,
        command=["dagster", "api", "execute_run", json.dumps(ARGUMENTS)],
        detach=True,
        environment={"DAGSTER_RUN_JOB_NAME": "clean_string_job"},
        network=None,
        labels={"dagster/run_id": run, "dagster/job_name": "clean_string_job"},
        **limits,
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngine]:
    engine = FakeEngine(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def gate(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    gate = Gate(tmp_path_factory.mktemp("gate"), engine.socket, most="1000")
    yield gate
    gate.stop()


@pytest.fixture
def open_gate(tmp_path: Path) -> Iterator[Callable[..., tuple[Gate, FakeEngine]]]:
    """Open gates of one's own, each in front of a new engine."""
    opened: list[tuple[Gate, FakeEngine]] = []

    def open_one(most: str = "4", **versions: str) -> tuple[Gate, FakeEngine]:
        directory = tmp_path / str(len(opened))
        directory.mkdir()
        engine = FakeEngine(directory, **versions)
        opened.append((Gate(directory, engine.socket, most), engine))
        return opened[-1]

    yield open_one
    for gate, engine in opened:
        gate.stop()
        engine.close()
