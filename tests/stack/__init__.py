"""One running copy of this project, under a Compose project name and a port of its own, and what tests ask of it."""

import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import docker
import requests
from dagster_graphql import DagsterGraphQLClient
from docker.models.containers import Container

ROOT = Path(__file__).parents[2]
JOB = "clean_string_job"
SERVICES = {"postgres", "user_code", "gate", "dagit", "dagster-daemon"}
BASE_IMAGES = ("python:3.13-slim-trixie", "postgres:17", "caddy:2")
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}

T = TypeVar("T")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class RunContainer(NamedTuple):
    """A run's container as it was at its start; it is removed soon after its end."""

    attrs: dict[str, Any]  # what `docker inspect` says
    processes: str  # what `docker top` says


class Deployment:
    """The stack of docker-compose.yml as project `project`, with Dagit on 127.0.0.1:`port`."""

    def __init__(self) -> None:
        """Choose a project name and a port that nobody uses."""
        self.engine = docker.from_env()
        self.project = f"dd-test-{secrets.token_hex(3)}"
        self.label = f"com.docker.compose.project={self.project}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.credentials = secrets.token_hex(16)
        self.environment = {
            "COMPOSE_PROJECT_NAME": self.project,
            "DAGIT_PORT": str(self.port),
            "CONNECTION_CREDENTIALS": self.credentials,
        }
        self.graphql = DagsterGraphQLClient("127.0.0.1", port_number=self.port)
        self.run_containers: dict[str, RunContainer] = {}
        threading.Thread(target=self._record_run_containers, daemon=True).start()

    def _record_run_containers(self) -> None:
        labels = [self.label, "dagster/run_id"]
        while True:
            with suppress(docker.errors.DockerException, HTTPException, OSError):  # the engine may come and go
                engine = docker.from_env()
                filters = {"type": "container", "event": "start", "label": labels}
                for event in engine.events(decode=True, filters=filters):
                    self._record_run_container(engine, event["id"])
            time.sleep(1)

    def _record_run_container(self, engine: docker.DockerClient, container_id: str) -> None:
        attrs = engine.api.inspect_container(container_id)
        try:
            processes = str(engine.api.top(container_id, ps_args="-ef"))
        except docker.errors.APIError:  # it has ended already
            processes = ""
        self.run_containers[attrs["Config"]["Labels"]["dagster/run_id"]] = RunContainer(attrs, processes)

    def compose(self, *args: str) -> str:
        """Return what `docker compose ARGS` prints; raise with all of its output if it fails."""
        # Neither a developer's .env nor an override file changes what is tested.
        command = ["docker", "compose", "--env-file", os.devnull, "--file", str(ROOT / "docker-compose.yml"), *args]
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"docker compose {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def build(self) -> None:
        """Build the images."""
        self.compose("build")

    def up(self) -> None:
        """Build, start, wait until healthy."""
        try:
            self.build()
            self.compose("up", "--detach", "--wait")
        except RuntimeError as error:
            error.add_note(self.logs() + self._missing_base_images())
            raise

    def _missing_base_images(self) -> str:
        here = {tag for image in self.engine.images.list() for tag in image.tags}
        missing = [image for image in BASE_IMAGES if image not in here]
        if not missing:
            return ""
        return (
            f"This engine has no {' and no '.join(missing)}. If the above says that it could not be pulled, either"
            f" `docker pull` it through a registry that answers; or `docker save {' '.join(missing)} -o images.tar`"
            " on another machine and `docker load -i images.tar` on this one; or, on Debian, run `.ci/base-images`,"
            " which makes it from Debian packages."
        )

    def remove(self) -> None:
        """Remove every trace of this copy from the engine, or raise with what is left."""
        self.compose("stop", "dagster-daemon", "gate")  # which launch and remove run containers meanwhile
        self.compose("down", "--volumes", "--remove-orphans")
        for tag in {tag for image in self.engine.images.list() for tag in image.tags}:
            if tag.startswith(f"{self.project}-"):
                self.engine.images.remove(tag)
        left = [
            *self.containers(),
            *self.engine.networks.list(filters={"label": self.label}),
            *self.engine.volumes.list(filters={"label": self.label}),
            *self.engine.images.list(f"{self.project}-*"),
        ]
        assert not left, f"left on the engine: {left}"

    def logs(self, *args: str) -> str:
        """Return the last lines of each service's log, or all with `--tail all`."""
        return self.compose("logs", "--no-color", *(args or ("--tail", "15")))

    def wait_for(
        self, what: str, probe: Callable[[], T], wanted: Callable[[T], object] = bool, timeout: float = 60
    ) -> T:
        """Call `probe` until its answer is `wanted`; return it, or raise with what was seen instead."""
        deadline = time.monotonic() + timeout
        while not wanted(seen := probe()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {timeout} s, but {seen!r}. The last log lines:\n{self.logs()}")
            time.sleep(0.25)
        return seen

    def containers(self, *labels: str) -> list[Container]:
        """Return all containers of this copy, or those that carry the labels too."""
        return self.engine.containers.list(all=True, filters={"label": [self.label, *labels]}, ignore_removed=True)

    def container(self, service: str) -> Container:
        """Return the service's container."""
        # The containers of runs carry the label of the service `user_code` too, as one-off ones.
        (container,) = self.containers(f"com.docker.compose.service={service}", "com.docker.compose.oneoff=False")
        return container

    def health(self, service: str) -> str:
        """Return healthy, unhealthy or starting."""
        return str(self.container(service).attrs["State"]["Health"]["Status"])

    def run_in(self, service: str, *command: str) -> bytes:
        """Return what a command prints in the service's container; raise if it fails."""
        exit_code, output = self.container(service).exec_run(list(command))
        assert exit_code == 0, output
        assert isinstance(output, bytes)
        return output

    def read(self, path: str) -> bytes:
        """Return the content of a file on the volume `data` or `storage`, as Dagit's container sees it."""
        return self.run_in("dagit", "cat", path)

    def sql(self, query: str) -> str:
        """Return the database's answer: a row a line, columns separated by `|`."""
        to = "--dbname=user=dagster connect_timeout=10"
        psql = ("psql", to, "--no-align", "--tuples-only", f"--command={query}")
        return self.run_in("postgres", *psql).decode().strip()

    def query(self, query: str, **variables: object) -> Any:
        """Return the only field of the answer to a GraphQL query."""
        response = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
        answer = response.json()
        assert "errors" not in answer, answer
        (field,) = answer["data"].values()
        return field

    def launch(self, config: dict[str, Any] | None = None, job: str = JOB, tags: dict[str, str] | None = None) -> str:
        """Request a run with Dagster's own GraphQL client; return its id."""
        return self.graphql.submit_job_execution(job, run_config=config, tags=tags)

    def status(self, run_id: str) -> str:
        """Return the run's status."""
        return self.graphql.get_run_status(run_id).value

    def finish(self, run_id: str) -> str:
        """Wait until the run and its container have ended; return its status."""
        status = self.wait_for(f"the end of run {run_id}", lambda: self.status(run_id), lambda seen: seen in ENDED)
        self.wait_for(
            f"the end of the container of run {run_id}",
            lambda: [container.status for container in self.containers(f"dagster/run_id={run_id}")],
            lambda states: "running" not in states,
        )
        return status

    def reexecute(self, run_id: str) -> str:
        """Re-execute a failed run from its failure; return the new run's id."""
        query = """
            mutation($id: String!) {
                launchRunReexecution(reexecutionParams: { parentRunId: $id, strategy: FROM_FAILURE }) {
                    ... on LaunchRunSuccess { run { runId } }
                }
            }"""
        return str(self.query(query, id=run_id)["run"]["runId"])

    def tags(self, run_id: str) -> dict[str, str]:
        """Return the run's tags."""
        run = self.query("query($id: ID!) { runOrError(runId: $id) { ... on Run { tags { key value } } } }", id=run_id)
        return {tag["key"]: tag["value"] for tag in run["tags"]}

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the run's event log, oldest first."""
        query = """
            query($id: ID!) { runOrError(runId: $id) { ... on Run { eventConnection { events {
                __typename
                ... on MessageEvent { message stepKey eventType }
                ... on LogsCapturedEvent { fileKey stepKeys }
                ... on ErrorEvent { error { message errorChain { error { message } } } }
            } } } } }"""
        return list(self.query(query, id=run_id)["eventConnection"]["events"])

    def launch_into(self, prepare: str) -> str:
        """Launch a run whose directory for texts a shell command prepares before the run starts; return its id."""
        self.compose("pause", "dagster-daemon")
        try:
            run_id = self.launch()
            self.engine.containers.run(
                f"{self.project}-user_code",
                ["sh", "-euc", f"mkdir /data/{run_id}; cd /data/{run_id}; {prepare}"],
                volumes={f"{self.project}_data": {"bind": "/data", "mode": "rw"}},
                network_mode="none",
                remove=True,
            )
        finally:
            self.compose("unpause", "dagster-daemon")
        return run_id

    def hang(self) -> str:
        """Launch a run that waits for ever in its last op, on a pipe where the output goes; return its id."""
        # In the first one, its RetryPolicy would count being stopped as a failure.
        run_id = self.launch_into("mkfifo .sent_clean.txt.partial")
        self.wait_for(
            f"the last output of run {run_id}",
            lambda: [event["stepKey"] for event in self.events(run_id) if event["eventType"] == "STEP_OUTPUT"],
            lambda steps: "clean_string" in steps,
        )
        return run_id


@contextmanager
def deployed(deployment: Deployment | None = None) -> Iterator[Deployment]:
    """Bring up a copy of the project, a plain one if none is given; remove it at the end."""
    deployment = deployment or Deployment()
    try:
        deployment.up()
        yield deployment
    finally:
        deployment.remove()
