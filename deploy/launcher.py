"""Dagster's launcher for Docker, which can also tell why a run's container died."""

import dagster as dg
import docker
from dagster_docker import DockerRunLauncher

LINES = 20  # of what it printed last; the gate tells so many


class RunLauncher(DockerRunLauncher):
    """Launches runs in Docker containers."""

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str:
        """Tell how the run's container ended and what it printed last; run monitoring puts it on the run's page.

        The last lines are told even where monitoring would do without them: the container is removed soon.
        """
        container_id = run.tags.get("docker/container_id")
        if not container_id:
            return "It got no container: the events above say why."
        try:
            container = docker.from_env().containers.get(container_id)
        except docker.errors.NotFound:
            return "Its container is gone: it ended by itself, was stopped, or was removed by hand."
        state = container.attrs["State"]
        if state["Running"]:
            return "Its container still runs; stop it with: docker stop " + container_id[:12]
        if state["OOMKilled"]:
            how = "It used up its memory, so the kernel killed it; RUN_MEMORY in .env sets the limit."
        elif state["ExitCode"] == 137:
            how = "It was killed (SIGKILL), and not for want of memory of its own."
        else:
            how = f"It ended before it could say how the run went. {state.get('Error', '')}".strip()
        printed = container.logs(tail=LINES).decode(errors="replace").strip() or "(nothing)"
        return f"Exit code of its container: {state['ExitCode']}. {how}\nWhat it printed last:\n{printed}"
