"""The containers of runs, which are removed soon after their end."""

import threading
import time
from contextlib import suppress
from http.client import HTTPException
from typing import Any, NamedTuple

import docker


class RunContainer(NamedTuple):
    """A run's container as it was at its start."""

    attrs: dict[str, Any]  # what `docker inspect` says
    processes: str  # what `docker top` says


class RunContainers(dict[str, RunContainer]):
    """Every run's container by the run's id, recorded while a thread listens to the engine's events."""

    def __init__(self, label: str) -> None:
        """Record those that carry a label, once `record` is called."""
        self.filters = {"type": "container", "event": "start", "label": [label, "dagster/run_id"]}
        self.thread = threading.Thread(target=self._listen, daemon=True)

    def record(self) -> None:
        """Start to listen, unless that is done."""
        if not self.thread.is_alive():
            self.thread.start()

    def _listen(self) -> None:
        while True:
            with suppress(docker.errors.DockerException, HTTPException, OSError):  # the engine may restart
                engine = docker.from_env()
                for event in engine.events(decode=True, filters=self.filters):
                    self._add(engine, event["id"])
            time.sleep(1)

    def _add(self, engine: docker.DockerClient, container_id: str) -> None:
        attrs = engine.api.inspect_container(container_id)
        try:
            processes = str(engine.api.top(container_id, ps_args="-ef"))
        except docker.errors.APIError:  # it has ended already
            processes = ""
        self[attrs["Config"]["Labels"]["dagster/run_id"]] = RunContainer(attrs, processes)
