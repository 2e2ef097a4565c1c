"""One stack: started under a Compose project name and a port of its own, asked over GraphQL and SQL, removed."""

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.models.containers import Container

from tests.stack.checkout import ROOT
from tests.stack.run_containers import RunContainers

JOB = "clean_string_job"
LOCATION = {"repositoryLocationName": "pipeline", "repositoryName": "__repository__"}
SERVICES = {"postgres", "user_code", "gate", "dagit", "dagster-daemon"}
BASE_IMAGES = ("python:3.13-slim-trixie", "postgres:17", "caddy:2")
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
HISTORY = Path(__file__).parent / "history.sql"

MINUTE = timedelta(minutes=1)

T = TypeVar("T")


def now() -> datetime:
    """Return the time as the database and the schedule write it: in UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Deployment:
    """The stack of a compose file in `directory`, as Compose project `project`, with Dagit on 127.0.0.1:`port`."""

    file = "docker-compose.yml"
    launchers: tuple[str, ...] = ("dagster-daemon", "gate")  # what launches and removes run containers

    def __init__(self, directory: Path = ROOT, project: str = "") -> None:
        """Choose a port that nobody uses, and a project name if none is given."""
        self.directory = directory
        self.engine = docker.from_env()
        self.project = project or f"dd-test-{secrets.token_hex(3)}"
        self.label = f"com.docker.compose.project={self.project}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.credentials = secrets.token_hex(16)
        self.environment = {
            "COMPOSE_PROJECT_NAME": self.project,
            "DAGIT_PORT": str(self.port),
            "CONNECTION_CREDENTIALS": self.credentials,
        }
        self.run_containers = RunContainers(self.label)

    # Start, wait, remove.

    def compose(self, *args: str, stdin: str | None = None) -> str:
        """Return what `docker compose ARGS` prints. RuntimeError with all of its output if it fails."""
        # No variable, .env or override file of a developer changes what is tested.
        shell = {key: value for key, value in os.environ.items() if key.startswith(("PATH", "HOME", "DOCKER_"))}
        command = ["docker", "compose", "--env-file", os.devnull, "--file", str(self.directory / self.file), *args]
        done = subprocess.run(
            command, env=shell | self.environment, input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"docker compose {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def build(self) -> None:
        """Build the images."""
        self.compose("build")

    def up(self) -> None:
        """Build, start, wait until healthy."""
        self.run_containers.record()
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

    def wait_for(
        self,
        what: str,
        probe: Callable[[], T],
        wanted: Callable[[T], object] = bool,
        timeout: float = 60,
        interval: float = 0.25,
    ) -> T:
        """Call `probe` until its answer is `wanted`; return it. TimeoutError with what was seen instead, and logs."""
        deadline = time.monotonic() + timeout
        while not wanted(seen := probe()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {timeout} s, but {seen!r}. The last log lines:\n{self.logs()}")
            time.sleep(interval)
        return seen

    def wait_until_healthy(self, timeout: float = 90) -> None:
        """Wait until all services are healthy."""
        self.wait_for(
            "healthy services",
            lambda: {service: self.health(service) for service in sorted(SERVICES)},
            lambda health: set(health.values()) == {"healthy"},
            timeout,
        )

    def down(self) -> None:
        """Remove its containers, networks and volumes."""
        self.compose("stop", *self.launchers)
        self.compose("down", "--volumes", "--remove-orphans")

    def remove(self) -> None:
        """Remove every trace of this stack from the engine. AssertionError with what is left."""
        self.down()
        for tag in {tag for image in self.engine.images.list() for tag in image.tags}:
            if tag.startswith(f"{self.project}-"):
                self.engine.images.remove(tag)
        untagged = {"label": self.label, "dangling": True}  # a newer image took their tag
        for image in self.engine.images.list(filters=untagged):
            with suppress(docker.errors.ImageNotFound):  # it went with the one before, which was made from it
                self.engine.images.remove(str(image.id))
        left = [
            *self.containers(),
            *self.engine.networks.list(filters={"label": self.label}),
            *self.engine.volumes.list(filters={"label": self.label}),
            *self.engine.images.list(filters=untagged),
            *self.engine.images.list(f"{self.project}-*"),
        ]
        assert not left, f"left on the engine: {left}"

    # The engine, the database and the volumes.

    def logs(self, *args: str) -> str:
        """Return the last lines of each service's log, or all with `--tail all`."""
        return self.compose("logs", "--no-color", *(args or ("--tail", "15")))

    def containers(self, *labels: str) -> list[Container]:
        """Return all containers of this stack, or those that carry the labels too."""
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
        """Return what a command prints in the service's container. AssertionError if it fails."""
        exit_code, output = self.container(service).exec_run(list(command))
        assert exit_code == 0, output
        assert isinstance(output, bytes)
        return output

    def read(self, path: str) -> bytes:
        """Return the content of a file on the volume `data` or `storage`, as Dagit's container sees it."""
        return self.run_in("dagit", "cat", path)

    def shell(self, script: str, *arguments: str) -> str:
        """Return what a shell script prints in a new container, which sees /data and /storage as a run does."""
        output = self.engine.containers.run(
            f"{self.project}-user_code",
            ["sh", "-euc", script, "sh", *arguments],
            volumes={f"{self.project}_{name}": {"bind": f"/{name}", "mode": "rw"} for name in ("data", "storage")},
            network_mode="none",
            remove=True,
        )
        return bytes(output).decode()

    def sql(self, query: str) -> str:
        """Return the database's answer to its superuser: a row a line, columns separated by `|`."""
        to = "--dbname=user=postgres dbname=dagster connect_timeout=10"
        psql = ("psql", to, "--no-align", "--tuples-only", f"--command={query}")
        return self.run_in("postgres", *psql).decode().strip()

    def copy_run(self, run_id: str, copies: int, **variables: str) -> None:
        """Insert copies of a run's rows into the database, with tests/stack/history.sql, which tells the variables."""
        psql = ["psql", "--username=dagster", "--quiet", "--set=ON_ERROR_STOP=1"]
        variables |= {"template": run_id, "runs": str(copies)}
        settings = [f"--set={name}={value}" for name, value in variables.items()]
        self.compose("exec", "-T", "postgres", *psql, *settings, stdin=HISTORY.read_text())

    # Dagit, over GraphQL.

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """Return the answer to a GraphQL query. AssertionError if it has errors."""
        response = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
        answer = response.json()
        assert "errors" not in answer, answer
        return dict(answer["data"])

    def query(self, query: str, **variables: object) -> Any:
        """Return the only field of the answer to a GraphQL query."""
        (field,) = self.ask(query, **variables).values()
        return field

    def submit(self, config: dict[str, Any] | None, job: str = JOB, tags: dict[str, str] | None = None) -> Any:
        """Request a run; return the answer, which may be a refusal."""
        query = """
            mutation($of: JobOrPipelineSelector!, $config: RunConfigData, $tags: [ExecutionTag!]) {
                launchRun(executionParams: {
                    selector: $of, runConfigData: $config, executionMetadata: { tags: $tags }
                }) {
                    ... on LaunchRunSuccess { run { runId } }
                    ... on RunConfigValidationInvalid { errors { message } }
                    ... on PythonError { message }
                }
            }"""
        pairs = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        return self.query(query, of=LOCATION | {"jobName": job}, config=config, tags=pairs)

    def launch(self, config: dict[str, Any] | None = None, job: str = JOB, tags: dict[str, str] | None = None) -> str:
        """Request a run; return its id. AssertionError if it is refused."""
        answer = self.submit(config, job, tags)
        assert "run" in answer, answer
        return str(answer["run"]["runId"])

    def reexecute(self, run_id: str) -> str:
        """Re-execute a failed run from its failure; return the new run's id."""
        query = """
            mutation($id: String!) {
                launchRunReexecution(reexecutionParams: { parentRunId: $id, strategy: FROM_FAILURE }) {
                    ... on LaunchRunSuccess { run { runId } }
                }
            }"""
        return str(self.query(query, id=run_id)["run"]["runId"])

    def status(self, run_id: str) -> str:
        """Return the run's status."""
        run = self.query("query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
        return str(run["status"])

    def finish(self, run_id: str, timeout: float = 60) -> str:
        """Wait until the run and its container have ended; return the run's status."""
        status = self.wait_for(f"the end of run {run_id}", lambda: self.status(run_id), ENDED.__contains__, timeout)
        self.wait_for(
            f"the end of the container of run {run_id}",
            lambda: [container.status for container in self.containers(f"dagster/run_id={run_id}")],
            lambda states: "running" not in states,
        )
        return status

    def tags(self, run_id: str) -> dict[str, str]:
        """Return the run's tags."""
        run = self.query("query($id: ID!) { runOrError(runId: $id) { ... on Run { tags { key value } } } }", id=run_id)
        return {tag["key"]: tag["value"] for tag in run["tags"]}

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the run's event log, oldest first."""
        query = """
            query($id: ID!) { runOrError(runId: $id) { ... on Run { eventConnection { events {
                __typename
                ... on MessageEvent { timestamp message stepKey eventType }
                ... on LogsCapturedEvent { fileKey stepKeys }
                ... on ErrorEvent { error { message errorChain { error { message } } } }
            } } } } }"""
        return list(self.query(query, id=run_id)["eventConnection"]["events"])

    def switch_schedule(self, name: str, *, on: bool) -> None:
        """Switch a schedule on or off, as in Dagit."""
        find = """
            query($of: ScheduleSelector!) { scheduleOrError(scheduleSelector: $of) {
                ... on Schedule { scheduleState { id } } } }"""
        start = """
            mutation($of: ScheduleSelector!) { startSchedule(scheduleSelector: $of) {
                ... on ScheduleStateResult { scheduleState { status } } } }"""
        stop = """
            mutation($id: String!) { stopRunningSchedule(id: $id) {
                ... on ScheduleStateResult { scheduleState { status } } } }"""
        of = LOCATION | {"scheduleName": name}
        state = self.query(find, of=of)["scheduleState"]
        answer = self.query(start, of=of) if on else self.query(stop, id=state["id"])
        assert answer == {"scheduleState": {"status": "RUNNING" if on else "STOPPED"}}

    # Runs that do not go as usual.

    def launch_into(self, prepare: str) -> str:
        """Launch a run whose directory for texts a shell command prepares before the run starts; return its id."""
        self.compose("pause", "dagster-daemon")
        try:
            run_id = self.launch()
            self.shell(f"mkdir /data/{run_id}; cd /data/{run_id}; {prepare}")
        finally:
            self.compose("unpause", "dagster-daemon")
        return run_id

    def hang(self) -> str:
        """Launch a run that hangs in its last op, on a pipe in place of its output; return its id."""
        # In the first op, its RetryPolicy would count being stopped as a failure.
        run_id = self.launch_into("mkfifo .sent_clean.txt.partial")
        self.wait_for(
            f"the last output of run {run_id}",
            lambda: [event["stepKey"] for event in self.events(run_id) if event["eventType"] == "STEP_OUTPUT"],
            lambda steps: "clean_string" in steps,
        )
        return run_id


@contextmanager
def deployed(deployment: Deployment | None = None) -> Iterator[Deployment]:
    """Start a stack, a plain one if none is given; remove it at the end."""
    deployment = deployment or Deployment()
    try:
        deployment.up()
        yield deployment
    finally:
        deployment.remove()
