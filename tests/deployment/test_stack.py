"""What `docker compose up` leaves running."""

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


def test_the_daemon_finds_the_code_that_it_waits_for_at_its_start(deployment: Deployment) -> None:
    assert "until healthcheck code_location;" in str(deployment.container("dagster-daemon").attrs["Config"]["Cmd"])
    deployment.run_in("dagster-daemon", "healthcheck", "code_location")


def test_the_daemon_holds_the_lock_at_which_a_second_one_waits(deployment: Deployment) -> None:
    exit_code, output = deployment.container("dagster-daemon").exec_run(
        ["flock", "--nonblock", "--conflict-exit-code", "42", "/opt/dagster/storage", "true"]
    )
    assert exit_code == 42, output
