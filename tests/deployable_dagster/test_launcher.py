"""The launcher."""

import re

import dagster as dg
import docker
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
