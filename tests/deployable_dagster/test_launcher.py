"""The launcher."""

import re
import time

import dagster as dg
import docker
import pytest
from deployable_dagster.launcher import RECORDED, RunLauncher

from tests.stack import BASE_IMAGES


@dg.job
def nothing() -> None:
    """Do nothing."""


def test_the_daemon_learns_of_an_end_when_all_of_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        RunLauncher().register_instance(instance)
        nothing.execute_in_process(instance=instance)

        def ends() -> int:
            read = instance.event_log_storage.get_logs_for_all_runs_by_log_id
            return len(read(after_cursor=-1, dagster_event_type={dg.DagsterEventType.RUN_SUCCESS}))

        assert ends() == 0
        later = time.time() + RECORDED
        monkeypatch.setattr(time, "time", lambda: later)
        assert ends() == 1


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
