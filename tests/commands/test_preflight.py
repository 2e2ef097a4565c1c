"""deploy/commands/preflight: what is missing is said in clear words, before anything starts."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.stack import ROOT

CONFIG = """
  published: "%d"
  MAX_CONCURRENT_RUNS: "4"
  RETENTION_DAYS: "30"
  DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS: "60"
  deployable-dagster.run.memory: 2g
  deployable-dagster.run.cpu-percent: "200"
  deployable-dagster.run.pids: "512"
  deployable-dagster.run.memory-max: 2g
  deployable-dagster.run.cpu-percent-max: "200"
  deployable-dagster.run.pids-max: "512"
"""


def preflight(tmp_path: Path, docker: str, checkout: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the script with a `docker` command whose body is given in shell."""
    (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
    (tmp_path / "docker").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [checkout / "deploy/commands/preflight"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("docker", "words"),
    [
        ("exit 127", "Docker Compose v2 is missing"),
        ('[ "$1" = compose ]', "No Docker engine answers: start Docker Desktop"),
        ('[ "$1" = compose ] || { echo "Got permission denied while trying" >&2; exit 1; }', "sudo usermod -aG docker"),
        ('[ "$1" != version ] || echo "Podman Engine Conmon OCI Runtime (crun)"', "install Docker Engine"),
        ('[ "$*" != "compose config" ]', "Correct .env"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, docker: str, words: str) -> None:
    said = preflight(tmp_path, docker)
    assert (said.returncode, said.stdout) == (1, "")
    assert words in said.stderr


@pytest.mark.parametrize("container", ["", "a1b2c3"])
def test_a_taken_port_is_named_unless_our_own_dagit_has_it(tmp_path: Path, container: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        docker = f"case $* in *config) echo '{CONFIG % port}' ;; *ps*) echo {container} ;; esac"
        said = preflight(tmp_path, docker)
    if container:
        assert (said.returncode, said.stderr) == (0, "")
    else:
        assert said.returncode == 1
        assert f"Port {port} of this machine is taken" in said.stderr
        assert "DAGIT_PORT" in said.stderr


def test_a_free_port_will_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = preflight(tmp_path, f"case $* in *config) echo '{CONFIG % port}' ;; esac")
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize("line", ["DATA_PATH=/data", "export PGSERVICEFILE='x'", " RETENTION_DAYS = 3", "#DATA_PATH=x"])
def test_a_variable_of_the_deployment_in_pipeline_env_is_named(tmp_path: Path, line: str) -> None:
    shutil.copytree(ROOT / "deploy/commands", tmp_path / "checkout/deploy/commands")
    (tmp_path / "checkout/pipeline.env").write_text(f"MINE=1\n{line}\nMY_DATA_PATH=/x\n")
    said = preflight(tmp_path, f"case $* in *config) echo '{CONFIG % 1}' ;; esac", tmp_path / "checkout")
    assert ("pipeline.env has no effect" in said.stderr) == (not line.startswith("#"))


@pytest.mark.parametrize(
    ("endpoint", "mounted", "kernel", "helps"),
    [
        ("unix:///run/user/1000/docker.sock", "/var/run/docker.sock", "$(uname -r)", True),
        ("unix:///etc/hosts", "/etc/../etc/hosts", "$(uname -r)", False),
        ("unix:///home/me/.docker/desktop/docker.sock", "/var/run/docker.sock", "6.6.0-linuxkit", False),
        ("ssh://me@server", "/var/run/docker.sock", "$(uname -r)", False),
    ],
    ids=["rootless", "the same", "in a virtual machine", "on another machine"],
)
def test_the_gate_must_use_the_same_engine(
    endpoint: str, mounted: str, kernel: str, helps: bool, tmp_path: Path
) -> None:
    config = CONFIG % 9 + f"  source: {mounted}\n  target: /var/run/docker.sock\n"
    docker = f"""case $* in
        *config) echo '{config}' ;; info*) echo "{kernel}" ;; context*) echo {endpoint} ;; *ps*) echo running ;;
    esac"""
    said = preflight(tmp_path, docker)
    assert said.returncode == helps, said.stderr
    assert (f"set DOCKER_SOCKET={endpoint.removeprefix('unix://')} in .env." in said.stderr) == helps
