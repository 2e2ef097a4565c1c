"""Dagster's launcher for Docker, which can also tell why a run's container died, and sees to it that it is retried."""

import time
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import dagster as dg
import docker
from dagster_docker import DockerRunLauncher

LINES = 20  # of what it printed last; the gate tells so many
RECORDED = 5  # seconds after which the end of a run is recorded in all places: more than enough


class RunLauncher(DockerRunLauncher):
    """Launches runs in Docker containers."""

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Let the daemon learn of the end of a run only when all of it is recorded.

        A failure is recorded as an event, then as the run's status, then as the decision to retry. The daemon's thread
        for retries looks at each event once; between the first two it finds no failed run, and retries nothing.
        """
        super().register_instance(instance)
        log = instance.event_log_storage
        read = log.get_logs_for_all_runs_by_log_id  # which nothing else asks

        def recorded(**query: Any) -> Mapping[int, dg.EventLogEntry]:
            before = time.time() - RECORDED
            return dict(takewhile(lambda event: event[1].timestamp < before, read(**query).items()))

        log.get_logs_for_all_runs_by_log_id = recorded  # type: ignore[method-assign, assignment]

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str:
        """Tell how the run's container ended and what it printed last; run monitoring puts it on the run's page.

        The last lines are told even where monitoring would do without them: the container is removed soon. Monitoring
        asks when it gives a run up. One that still runs then is killed: it might go on beside the run that takes it up,
        and nobody would ever remove it.
        """
        container_id = run.tags.get("docker/container_id")
        if not container_id:
            return "It got no container: the events above say why."
        try:
            container = docker.from_env().containers.get(container_id)
        except docker.errors.NotFound:
            return "Its container is gone: it ended by itself, was stopped, or was removed by hand."
        hung = container.attrs["State"]["Running"]
        if hung:
            container.stop(timeout=0)
            container.reload()
        state = container.attrs["State"]
        if hung:
            how = "It still ran, and was killed."
        elif state["OOMKilled"]:
            how = "It used up its memory, so the kernel killed it; RUN_MEMORY in .env sets the limit."
        elif state["ExitCode"] == 137:
            how = "It was killed (SIGKILL), and not for want of memory of its own."
        else:
            how = f"It ended before it could say how the run went. {state.get('Error', '')}".strip()
        printed = container.logs(tail=LINES).decode(errors="replace").strip() or "(nothing)"
        return f"Exit code of its container: {state['ExitCode']}. {how}\nWhat it printed last:\n{printed}"
