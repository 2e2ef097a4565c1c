"""Dagster's launcher for Docker, which can also say why a run's container died."""

from typing import Any

import dagster as dg
import docker
import requests
from dagster._core.errors import DagsterUserCodeUnreachableError  # public nowhere
from dagster_docker import DockerRunLauncher
from dagster_docker.container_context import DockerContainerContext
from docker.models.containers import Container

from deployable_dagster import limits

LINES = 20  # the last log lines; the gate lets no other number through


class RunLauncher(DockerRunLauncher):
    """Launches each run in a Docker container of its own, which the gate makes like that of the run's code server."""

    def get_container_context(self, dagster_run: dg.DagsterRun) -> DockerContainerContext:
        """Return the limits in the run's tags, and nothing else: the gate knows what a container is made of."""
        return DockerContainerContext(container_kwargs=limits.read(dagster_run.tags))

    def launch_run(self, context: Any) -> None:
        """Launch a run. While the gate, the engine or the code server is unavailable, the run waits in the queue.

        The queue (dagster/_daemon/run_coordinator/queued_run_coordinator_daemon.py, 1.13.27) takes a run back for one
        kind of error only, so the others are turned into it. This can go when it takes back all that may pass.

        What the gate refuses, it would refuse to a retry too.
        """
        run = context.dagster_run
        if problem := limits.find_problem(run.tags, {}):
            limits.refuse(self._instance, run, problem)
            return
        try:
            super().launch_run(context)
        except (docker.errors.DockerException, requests.RequestException) as error:
            if isinstance(error, docker.errors.APIError) and error.status_code == 403:
                limits.refuse(self._instance, run, str(error.explanation))
                return
            after = self._instance.get_run_by_id(run.run_id)
            before, now = (r and r.tags.get("docker/container_id") for r in (run, after))
            if may_pass(error) and now == before:  # once it has a container, that may be running
                raise DagsterUserCodeUnreachableError(f"The run cannot start yet: {error}") from error
            raise

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str:
        """Return how the run's container ended and its last log lines; they go to the run's page.

        Run monitoring (dagster/_daemon/monitoring/run_monitoring.py, 1.13.27) calls this when it marks a run as failed,
        and leaves a container that still runs alone: it would work on beside the run's retry, and nobody would ever
        remove it. So it is killed here, until monitoring terminates what it gives up. The log lines are always
        included, because the container is removed soon.
        """
        container_id = run.tags.get("docker/container_id")
        if not container_id:
            return "It got no container: the events above say why."
        try:
            container = docker.from_env().containers.get(container_id)
        except docker.errors.NotFound:
            return "Its container is gone: it ended by itself, was stopped, or was removed by hand."
        killed = kill(container)
        return describe(container, killed=killed, starting=run.status == dg.DagsterRunStatus.STARTING)


def may_pass(error: Exception) -> bool:
    """Tell whether the cause of a failed launch may pass by itself."""
    return not isinstance(error, docker.errors.APIError) or error.status_code in (429, 502, 503)


def kill(container: Container) -> bool:
    """Kill a container if it runs; return whether it did."""
    running = bool(container.attrs["State"]["Running"])
    if running:
        container.stop(timeout=0)
        container.reload()
    return running


def describe(container: Container, *, killed: bool, starting: bool) -> str:
    """Return in words how an ended container ended, with its last log lines."""
    state = container.attrs["State"]
    if killed and starting:
        how = "It was still importing your code, and was killed; start_timeout_seconds in dagster.yaml sets the limit."
    elif killed:
        how = "It was still running, and was killed."
    elif state["OOMKilled"]:
        how = "It exceeded its memory limit (RUN_MEMORY in .env, or its tag docker/memory), so the kernel killed it."
    elif state["ExitCode"] == 137:
        how = "It was killed (SIGKILL), but not because it exceeded its memory limit."
    else:
        how = f"It ended before it could say how the run went. {state.get('Error', '')}".strip()
    printed = container.logs(tail=LINES).decode(errors="replace").strip() or "(nothing)"
    return f"Exit code of its container: {state['ExitCode']}. {how}\nIts last log lines:\n{printed}"
