"""The launcher, without Docker."""

import time
from unittest.mock import MagicMock

import dagster as dg
import docker
import pytest
from deployable_dagster.launcher import RECORDED, RunLauncher


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


def test_a_container_that_still_runs_when_its_run_is_given_up_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    container = MagicMock()
    container.attrs = {"State": {"Running": True}}
    container.reload.side_effect = lambda: container.attrs.update(State={"Running": False, "ExitCode": 137})
    container.logs.return_value = b"connecting"
    engine = MagicMock()
    engine.containers.get.return_value = container
    monkeypatch.setattr(docker, "from_env", lambda: engine)
    told = RunLauncher().get_run_worker_debug_info(dg.DagsterRun("nothing", tags={"docker/container_id": "0"}))
    container.stop.assert_called_once_with(timeout=0)
    assert told.startswith("Exit code of its container: 137. It still ran, and was killed.")
    assert told.endswith("connecting")
