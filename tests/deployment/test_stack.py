"""What runs after `docker compose up`."""

import json

import pytest

from tests.stack import SERVICES, Deployment


def test_every_service_is_healthy_and_the_migration_succeeded(deployment: Deployment) -> None:
    rows = [json.loads(line) for line in deployment.compose("ps", "--all", "--format=json").splitlines()]
    own = [row for row in rows if "com.docker.compose.oneoff=False" in row["Labels"]]  # the others are runs
    services = {row["Service"]: (row["State"], row["Health"], row["ExitCode"]) for row in own}
    assert services == {**dict.fromkeys(SERVICES, ("running", "healthy", 0)), "migrate": ("exited", "", 0)}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_service_restarts_has_time_to_stop_and_a_capped_log(service: str, deployment: Deployment) -> None:
    attrs = deployment.container(service).attrs
    assert attrs["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert attrs["Config"]["StopTimeout"] > 10
    assert {"max-size", "max-file"} <= attrs["HostConfig"]["LogConfig"]["Config"].keys()


def test_dagit_alone_is_published_and_on_loopback(deployment: Deployment) -> None:
    published = {
        container.labels["com.docker.compose.service"]: container.attrs["HostConfig"]["PortBindings"]
        for container in deployment.containers()
        if container.attrs["HostConfig"]["PortBindings"]
    }
    assert published == {"dagit": {"3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(deployment.port)}]}}


def processes(deployment: Deployment) -> str:
    """Return the command lines of the processes in the daemon's container."""
    return str(deployment.container("dagster-daemon").top(ps_args="-eo pid,args")["Processes"])


@pytest.mark.timeout(300)
def test_the_daemon_waits_for_user_code_at_its_start(neighbour: Deployment) -> None:
    neighbour.compose("stop", "user_code")
    try:
        neighbour.compose("restart", "--no-deps", "dagster-daemon")
        seen = neighbour.wait_for("the wait for user_code", lambda: processes(neighbour), lambda seen: "sleep" in seen)
        assert "dagster-daemon run" not in seen
    finally:
        neighbour.compose("start", "user_code")
    neighbour.wait_for("the daemon", lambda: processes(neighbour), lambda seen: "dagster-daemon run" in seen)
    neighbour.wait_until_healthy()


def test_a_second_daemon_waits_at_the_lock_of_the_first(deployment: Deployment) -> None:
    daemon = deployment.container("dagster-daemon")
    daemon.exec_run(["timeout", "20", *daemon.attrs["Config"]["Cmd"]], detach=True)
    waiting = deployment.wait_for("the second daemon", lambda: processes(deployment), lambda seen: "flock" in seen)
    assert waiting.count("dagster-daemon run") == 1
