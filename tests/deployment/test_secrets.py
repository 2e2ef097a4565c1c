"""The database's password and the connection's credentials: not visible anywhere."""

import json

import pytest

from tests.stack import Deployment


@pytest.fixture(scope="module")
def password(deployment: Deployment) -> str:
    """Return the database's password."""
    password = deployment.run_in("postgres", "cat", "/secret/password").decode()
    assert len(password) > 30
    return password


@pytest.fixture(scope="module")
def run_id(deployment: Deployment) -> str:
    """Launch the job, wait for its success, return the run's id."""
    run_id = deployment.launch()
    assert deployment.finish(run_id) == "SUCCESS"
    return run_id


def test_each_stack_makes_a_password_of_its_own(password: str, neighbour: Deployment) -> None:
    assert neighbour.run_in("postgres", "cat", "/secret/password").decode() != password


def test_the_password_is_in_no_description_process_list_or_log(
    password: str, run_id: str, deployment: Deployment
) -> None:
    running = [container for container in deployment.containers() if container.status == "running"]
    places = {
        "docker inspect": json.dumps([container.attrs for container in deployment.containers()]),
        "docker inspect, of a run": json.dumps(deployment.run_containers[run_id].attrs),
        "docker compose config": deployment.compose("config"),
        "docker top": str([container.top(ps_args="-ef") for container in running]),
        "docker top, of a run": deployment.run_containers[run_id].processes,
        "docker compose logs": deployment.logs("--tail", "all"),
        "events of a run": json.dumps(deployment.events(run_id)),
    }
    assert all(places.values())
    assert {place for place, text in places.items() if password in text} == set()


def test_the_password_is_in_no_process_as_an_environment_variable(password: str, deployment: Deployment) -> None:
    for service in ("dagit", "dagster-daemon", "user_code"):
        assert password not in deployment.run_in(service, "cat", "/proc/1/environ").decode()


def test_the_credentials_reach_a_run_and_no_log(run_id: str, deployment: Deployment) -> None:
    container = deployment.run_containers[run_id].attrs["Config"]["Env"]
    assert f"CONNECTION_CREDENTIALS={deployment.credentials}" in container
    compute_logs = deployment.run_in("dagit", "sh", "-c", f"cat /opt/dagster/storage/{run_id}/compute_logs/*").decode()
    assert "with credentials" in compute_logs
    places = {
        "services' logs": deployment.logs("--tail", "all"),
        "compute logs": compute_logs,
        "event log": deployment.sql("SELECT event FROM event_logs"),
    }
    # The connection's value is the credentials in upper case.
    assert {place for place, text in places.items() if deployment.credentials in text.lower()} == set()
