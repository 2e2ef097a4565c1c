"""The launcher, without Docker."""

import time

import dagster as dg
import pytest

from deploy.launcher import RECORDED, RunLauncher


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
