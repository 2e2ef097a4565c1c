"""A shell inside each container: what an intruder would try there does not work."""

from collections.abc import Iterator

import pytest
from docker.models.containers import Container

from tests.stack import Deployment

PLACES = ("dagit", "dagster-daemon", "user_code", "a run")

# Most succeed for root in a container with the engine's defaults, as the last test shows.
ESCAPES = {
    "write to the root file system": "touch /escape",
    "change the code that is executed": "cd /venv/lib/python3*/site-packages/dagster && touch escape",
    "become root": "python -c 'import os; os.setuid(0)'",
    "change the owner of a file": "touch /tmp/escape && chown 12345 /tmp/escape",
    "mount": "mount -t tmpfs none /mnt",
    "make a device": "mknod /dev/shm/escape b 8 0",
    "change the root": "chroot / true",
    "enter new namespaces": "unshare --user --map-root-user true || unshare --mount true",
    "open a raw socket": "python -c 'import socket as s; s.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_ICMP)'",
    "change the kernel's settings": "cat /proc/sys/kernel/hostname >/proc/sys/kernel/hostname",
    "set the clock": "python -c 'import time; time.clock_settime(0, time.time())'",
    "read the kernel's log": "dmesg",
    "read root's password hash": "cat /etc/shadow",
}

# Everything that a place may or may not have access to.
RESOURCES = {
    "postgres": "</dev/tcp/postgres/5432",
    "user_code": "ls /run/user_code/grpc.sock",
    "dagit": "</dev/tcp/dagit/3000",
    "the engine's socket": "ls /var/run/docker.sock /run/docker.sock | grep .",
    "the gate's socket": "ls /run/gate/docker.sock",
    "the texts": "ls /data | grep .",
    "the database's own password file": "cat /secret/password",
}
ACCESS = {
    "dagit": {"postgres", "user_code", "dagit", "the gate's socket", "the texts"},
    "dagster-daemon": {"postgres", "user_code", "dagit", "the gate's socket"},
    "user_code": {"postgres", "user_code", "the texts"},
    "a run": {"postgres", "the texts"},
}


@pytest.fixture(scope="module")
def containers(neighbour: Deployment) -> Iterator[dict[str, Container]]:
    """Yield the containers that an intruder could be in; one is the container of a run that hangs."""
    run_id = neighbour.hang()
    (run,) = neighbour.containers(f"dagster/run_id={run_id}")
    yield {"a run": run} | {service: neighbour.container(service) for service in PLACES[:-1]}
    run.kill()


def works(container: Container, command: str) -> bool:
    """Return whether a shell command in the container succeeds."""
    return container.exec_run(["timeout", "5", "bash", "-c", command]).exit_code == 0


@pytest.mark.parametrize("place", PLACES)
def test_no_escape_works(place: str, containers: dict[str, Container]) -> None:
    assert [escape for escape, command in ESCAPES.items() if works(containers[place], command)] == []


@pytest.mark.parametrize("place", PLACES)
def test_each_has_access_to_what_it_needs_and_nothing_else(place: str, containers: dict[str, Container]) -> None:
    assert {name for name, command in RESOURCES.items() if works(containers[place], command)} == ACCESS[place]


@pytest.mark.parametrize("place", ["dagit", "dagster-daemon"])
def test_python_imports_nothing_that_a_run_wrote(place: str, containers: dict[str, Container]) -> None:
    find = "from importlib.util import find_spec; exit(find_spec('storage') is not None)"
    assert works(containers[place], f'ls storage && python -c "{find}"')


@pytest.mark.parametrize("place", [*PLACES, "gate", "postgres"])
def test_the_kernel_confirms_the_privileges(
    place: str, containers: dict[str, Container], neighbour: Deployment
) -> None:
    container = containers[place] if place in containers else neighbour.container(place)
    # The status of the service's process; the first process is the engine's init.
    status = container.exec_run(["sh", "-c", "cat /proc/$(cut -d ' ' -f 1 /proc/1/task/1/children)/status"]).output
    assert isinstance(status, bytes)
    fields = {name: value for name, _, value in (line.partition(":\t") for line in status.decode().splitlines())}
    uids = {"gate": "0", "postgres": "999"}
    assert fields["Uid"].split() == [uids.get(place, "1000")] * 4
    assert fields["CapEff"] == fields["CapPrm"] == "0" * 16
    assert int(fields["CapBnd"], 16) == (0xEB if place == "postgres" else 0)
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def test_only_the_networks_of_your_code_and_of_dagits_port_reach_the_internet(neighbour: Deployment) -> None:
    networks = neighbour.engine.networks.list(filters={"label": neighbour.label})
    internal = {
        str(network.name).removeprefix(f"{neighbour.project}_"): network.attrs["Internal"] for network in networks
    }
    assert internal == {"database": True, "runs": False, "published": False}


def test_root_would_get_further(neighbour: Deployment) -> None:
    container = neighbour.engine.containers.run(
        f"{neighbour.project}-dagster", ["sleep", "60"], user="root", detach=True, network_mode="none"
    )
    try:
        worked = {escape for escape, command in ESCAPES.items() if works(container, command)}
    finally:
        container.remove(force=True)
    assert worked >= {
        "write to the root file system",
        "change the code that is executed",
        "become root",
        "change the owner of a file",
        "make a device",
        "change the root",
        "open a raw socket",
        "read root's password hash",
    }
