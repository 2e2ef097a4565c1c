"""deploy/container/check: what it reports, and when it kills, in a container of its own."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

CHECK = (Path(__file__).parents[2] / "deploy/container/check").read_text()


@pytest.fixture
def container(docker_engine: None) -> Iterator[Container]:
    """Yield a container whose service sleeps, with an init, as in docker-compose.yml."""
    engine = docker.from_env()
    container = engine.containers.run("python:3.13-slim-trixie", ["sleep", "300"], init=True, detach=True)
    yield container
    container.remove(force=True)


def check(container: Container, command: str, *, up: bool = True) -> int:
    """Return the exit code of a check by a shell command, after its first success or before it."""
    container.exec_run(["sh", "-c", "touch /dev/shm/up" if up else "rm -f /dev/shm/up"])
    return container.exec_run(["sh", "-c", CHECK, "check", "0", "sh", "-c", command]).exit_code or 0


def runs(container: Container) -> bool:
    """Return whether the service still runs."""
    container.reload()
    return bool(container.attrs["State"]["Running"])


def test_success_is_reported(container: Container) -> None:
    assert check(container, "exit 0") == 0


def test_before_the_first_success_nothing_is_killed(container: Container) -> None:
    assert check(container, "exit 2", up=False) == 1
    assert runs(container)


def test_two_failures_in_a_row_kill_nothing(container: Container) -> None:
    assert check(container, "echo >>/tmp/tries; [ $(wc -l </tmp/tries) -ge 3 ]") == 0
    assert runs(container)


def test_75_is_unhealthy_and_kills_nothing(container: Container) -> None:
    assert [check(container, "exit 75") for _ in range(2)] == [1, 1]
    assert runs(container)


def test_three_failures_in_a_row_kill_the_service(container: Container) -> None:
    container.exec_run(["sh", "-c", "touch /dev/shm/up"])
    container.exec_run(["sh", "-c", CHECK, "check", "0", "sh", "-c", "exit 2"])
    assert container.wait(timeout=30)["StatusCode"] == 137
