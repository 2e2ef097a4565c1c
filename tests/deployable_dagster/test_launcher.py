"""The launcher."""

import re
from types import SimpleNamespace

import dagster as dg
import docker
import pytest
import requests
from dagster_docker import DockerRunLauncher
from deployable_dagster.launcher import RunLauncher

from tests.stack import BASE_IMAGES


def test_a_container_that_still_runs_when_its_run_is_marked_as_failed_is_killed(docker_engine: None) -> None:
    engine = docker.from_env()
    command = ["sh", "-c", "trap '' TERM; echo connecting; sleep infinity & wait"]
    container = engine.containers.run(BASE_IMAGES[0], command, detach=True, network_mode="none")
    try:
        for line in container.logs(stream=True):
            assert line == b"connecting\n"
            break
        told = RunLauncher().get_run_worker_debug_info(
            dg.DagsterRun("nothing", tags={"docker/container_id": str(container.id)})
        )
        container.reload()
        assert container.status == "exited"
    finally:
        container.remove(force=True)
    assert re.match("Exit code of its container: 137. It .*, and was killed.", told)
    assert told.endswith("\nconnecting")


@pytest.mark.parametrize(
    ("tags", "status", "reason"),
    [
        ({"docker/memory": "8g"}, 403, "the tag docker/memory asks for 8g, and 4g is the most that a run may have"),
        ({"docker/pids": "many"}, 201, "'many' is not a valid value for the tag docker/pids: use something like 1000."),
    ],
)
def test_a_run_that_the_gate_refuses_fails_at_once_and_is_not_retried(
    tags: dict[str, str], status: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object) -> None:
        response = requests.Response()
        response.status_code = status
        if status == 403:
            raise docker.errors.APIError("refused", response=response, explanation=reason)

    monkeypatch.setattr(DockerRunLauncher, "launch_run", answer)

    @dg.job
    def nothing() -> None: ...

    with dg.DagsterInstance.local_temp(overrides={"run_retries": {"enabled": True, "max_retries": 1}}) as instance:
        run = instance.create_run_for_job(nothing, tags=tags)
        launcher = RunLauncher()
        launcher.register_instance(instance)
        launcher.launch_run(SimpleNamespace(dagster_run=run))
        after = instance.get_run_by_id(run.run_id)
        assert after is not None
        assert (after.status, after.tags["dagster/will_retry"]) == (dg.DagsterRunStatus.FAILURE, "false")
        assert [entry.message for entry in instance.all_logs(run.run_id)] == [f"The run is refused. {reason}"]
