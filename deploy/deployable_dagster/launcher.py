"""Dagster's launcher for Docker, which can also say why a run's container died."""

import dagster as dg
import docker
from dagster_docker import DockerRunLauncher
from docker.models.containers import Container

LINES = 20  # the last log lines; the gate lets no other number through


class RunLauncher(DockerRunLauncher):
    """Launches each run in a Docker container of its own."""

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
        how = "It exceeded its memory limit, so the kernel killed it; RUN_MEMORY in .env sets the limit."
    elif state["ExitCode"] == 137:
        how = "It was killed (SIGKILL), but not because it exceeded its memory limit."
    else:
        how = f"It ended before it could say how the run went. {state.get('Error', '')}".strip()
    printed = container.logs(tail=LINES).decode(errors="replace").strip() or "(nothing)"
    return f"Exit code of its container: {state['ExitCode']}. {how}\nIts last log lines:\n{printed}"
