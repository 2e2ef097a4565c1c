"""The gate: the one container that holds the Docker engine's socket.

It lets Dagster's DockerRunLauncher create, start, inspect and stop run containers, and read the last lines of those
that ended; it lets nothing else through. It removes run containers after their end.

**It relays nothing.** Each request to the engine is composed here: its path is a constant, with at most a container's
64 hexadecimal digits in it, and the body of a create request is a template. The template is made at start from the
deployment's own description of a run container, by the library that the launcher uses. A client fills in what differs
from run to run, each checked: the command's JSON, the values of the environment's variables, two labels.

usage: gate.py IMAGE DESCRIPTION [IMAGE DESCRIPTION ...]

An IMAGE stands there without a tag; runs name it with one, whichever it is.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import docker
from aiohttp import web

OWNER = "deployable-dagster.gate"  # the label by which the gate knows its containers; its value is the project's name
API_VERSION = (1, 44)  # the engine is spoken to in this one, or in the nearest that it knows
HEADERS = {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}
LARGEST_BODY = 64 * 1024  # bytes; the launcher's requests have 5,000
MOST_CLIENTS = 256  # at one door at a time; of those whose request is not complete, the first gives way to one more
PATIENCE = 5  # seconds in which a request must be complete
FORGOTTEN = 300  # seconds after which a container that was created but never started is removed
KEPT = 60  # seconds that an ended one is kept: for Dagster, which may not know yet that it ended
UNREAD = 24 * 3600  # and one that died until its last lines are read, or for so long
READ = "read-"  # begins the name of a container whose last lines were read
STARTED, ENDED = ("running", "paused", "restarting"), ("exited", "dead")
TAG = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"  # as Docker has it
STATE = {"Status", "Running", "Paused", "OOMKilled", "Dead", "ExitCode", "Error", "StartedAt", "FinishedAt"}

# What may be asked, by method, path and query exactly as written; and at which door. dagster-daemon stops runs too:
# those that exceed their time, and those of a backfill that is cancelled.
CONTAINER = "/containers/(?P<container>[0-9a-f]{64})"
ROUTES = {
    "version": "GET /version",
    "create": "POST PREFIX/containers/create",
    "inspect": f"GET PREFIX{CONTAINER}/json",
    "start": f"POST PREFIX{CONTAINER}/start",
    "stop": rf"POST PREFIX{CONTAINER}/stop(\?t=(?P<seconds>[0-9]{{1,4}}))?",
    "logs": rf"GET PREFIX{CONTAINER}/logs\?stderr=1&stdout=1&timestamps=0&follow=0&tail=20",
}
DOORS = {"launch": list(ROUTES), "stop": ["version", "inspect", "stop"]}

# What may stand in a description: the pattern of its JSON, and an example. What is not here is not allowed.
COUNT, SIZE, PATH, NAME = "[1-9][0-9]*", '"[1-9][0-9]*[bkmg]"', r"(/[\w.-]+)+", r"[A-Za-z0-9][\w.-]*"
CHARACTERS = r'([^"\\]|\\[^u])*'
RULES = {
    "env_vars": (rf'\[("[A-Za-z_]\w*(={CHARACTERS})?"(, )?)*\]', '["DATA_PATH", "MODE=fast"]'),
    "networks": (rf'\["(?!(host|bridge|default)"){NAME}"\]', "one network of the deployment"),
    "user": (r'"[1-9][0-9]*(:[1-9][0-9]*)?"', '"1000", the number of a user other than root'),
    "cap_drop": (r'\["ALL"\]', '["ALL"]'),
    "security_opt": (r'\["no-new-privileges:true"\]', '["no-new-privileges:true"]'),
    "read_only": ("true", "true"),
    "mem_limit": (SIZE, '"2g"'),
    "cpu_quota": (COUNT, "200000, microseconds in a tenth of a second: two CPUs"),
    "pids_limit": (COUNT, "512"),
    "log_config": (
        r'\{"type": "(json-file|local)", "config": \{"max-size": "[0-9]+[kmg]"(, "max-file": "[0-9]+")?\}\}',
        '{"type": "json-file", "config": {"max-size": "10m"}}',
    ),
    "init": ("true|false", "true"),
    "stop_timeout": (COUNT, "30"),
    "shm_size": (SIZE, '"64m"'),
    "tmpfs": (rf'\{{("{PATH}": "[\w=,]*"(, )?)*\}}', '{"/tmp": "size=1g"}'),
    "volumes": (rf'\[("{NAME}:{PATH}(:r[ow])?"(, )?)*\]', '["data:/data:ro"], volumes by name'),
    "labels": (rf'\{{("{CHARACTERS}": "{CHARACTERS}"(, )?)*\}}', '{"team": "data"}'),
}
OPTIONAL = {"init", "stop_timeout", "shm_size", "tmpfs", "volumes", "labels"}

log = logging.getLogger("gate")
Json = Any  # whatever JSON can say
Answer = tuple[int, dict[str, Json] | bytes | None, str]  # status, body, what the log says of it


class RefusedError(Exception):
    """No, with a status and a reason, which quotes nothing that a client sent."""

    def __init__(self, status: int, reason: str) -> None:
        """Say no."""
        super().__init__(reason)
        self.status = status


def read(text: str) -> Json:
    """Parse JSON that means the same to every reader: Go takes `binds` for `Binds`, and the last of two."""

    def unambiguous(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        if len({key.casefold() for key, _ in pairs}) < len(pairs):
            raise ValueError("a key stands there twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unambiguous)


def same(one: Json, other: Json) -> bool:
    """Compare as JSON; for Python 1, 1.0 and true are the same."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def check(text: str) -> tuple[list[str], str, dict[str, Json]]:
    """Return a description's variables, network and container arguments. ValueError tells each line to change."""
    match read(text):
        case {"docker": {"container_kwargs": dict(arguments), **rest}, **others} if not others:
            given: dict[str, Json] = arguments | rest
        case _:
            raise ValueError('  it must be {"docker": {"env_vars": …, "networks": …, "container_kwargs": …}}')
    wrong = [f'  add "{key}": {RULES[key][1]}' for key in RULES if key not in given and key not in OPTIONAL]
    for key, value in given.items():
        line = next((line.strip() for line in text.splitlines() if f'"{key}":' in line), f'"{key}"')
        if key not in RULES:
            wrong.append(f"  remove {line}")
        elif not re.fullmatch(RULES[key][0], json.dumps(value, ensure_ascii=False), re.ASCII):
            wrong.append(f'  change {line} into the like of "{key}": {RULES[key][1]}')
    if wrong:
        raise ValueError("\n".join(wrong))
    return given.pop("env_vars"), given.pop("networks")[0], given


class Composer(docker.APIClient):
    """docker-py, composing the body of a create request as it does for the launcher, and sending nothing."""

    body: dict[str, Json]

    def create_container_from_config(
        self, config: Json, name: str | None = None, platform: str | None = None
    ) -> dict[str, str]:
        """Keep what would be sent."""
        self.body = {key: value for key, value in config.items() if value is not None}
        return {"Id": "none"}

    def inspect_container(self, container: Json) -> dict[str, str]:
        """Answer what docker-py asks afterwards."""
        return {"Id": "none"}


class Template:
    """The create request for the runs of one image, but for what differs from run to run."""

    def __init__(self, image: str, description: str, version: str) -> None:
        """Compose it, as the launcher would. ValueError if the description is unsafe: each line to change."""
        variables, network, kwargs = check(description)
        self.labels = kwargs.pop("labels", {})
        kwargs.pop("stop_timeout", None)  # the launcher's own: it says it when it stops a container
        self.fixed = dict(variable.split("=", 1) for variable in variables if "=" in variable)
        self.names = [*(variable.split("=")[0] for variable in variables), "DAGSTER_RUN_JOB_NAME"]
        client = docker.DockerClient(version=version)
        client.api = composer = Composer(version=version)
        client.containers.create(image, detach=True, network=network, **kwargs)
        self.body = composer.body

    def fill(self, asked: dict[str, Json]) -> dict[str, Json]:
        """Return the body to send for what a client asked for, or refuse."""
        match asked:
            case {
                "Cmd": ["dagster", "api", "execute_run" | "resume_run" as command, str(arguments)],
                "Env": [*pairs],
                "Labels": {"dagster/run_id": str(run), "dagster/job_name": str(job), **labels},
                **rest,
            }:
                env = dict(pair.split("=", 1) for pair in pairs)
            case _:
                raise RefusedError(403, "not a command, an environment and labels of a run")
        if not same(rest, self.body):
            differs = [key for key in self.body if not same(rest.get(key), self.body[key])]
            raise RefusedError(403, f"not as described: {', '.join(differs) or 'there is more'}")
        if len(env) < len(pairs) or env.keys() != set(self.names) or not self.fixed.items() <= env.items():
            raise RefusedError(403, "not the environment described")
        if labels != self.labels or not re.fullmatch(r"[0-9a-f-]{36} \w{1,255}", f"{run} {job}", re.ASCII):
            raise RefusedError(403, "not the labels described")
        if not isinstance(parsed := read(arguments), dict) or "\0" in "".join(env.values()):
            raise RefusedError(403, "not the arguments of a run")
        return {
            **self.body,
            "Cmd": ["dagster", "api", command, json.dumps(parsed, allow_nan=False)],
            "Env": [f"{name}={env[name]}" for name in self.names],
            "Labels": {**self.labels, "dagster/run_id": run, "dagster/job_name": job},
        }


class Gate:
    """What a client may ask for, and what the engine is then asked."""

    def __init__(self, path: str, owner: str, most: int) -> None:
        """Stand before the engine's socket, for a project that may have so many runs."""
        connector = aiohttp.UnixConnector(path, limit=0)
        self.session = aiohttp.ClientSession("http://engine", connector=connector)
        self.owner, self.most = owner, most
        self.api, self.prefix = "", ""
        self.templates: dict[str, Template] = {}
        self.creating = asyncio.Lock()
        self.starting: set[str] = set()
        self.burials: dict[str, asyncio.Task[None]] = {}  # by container, of those that were started and are there still
        self.stopped: set[str] = set()
        self.read: dict[str, asyncio.Event] = {}  # whether somebody knows its last lines

    async def engine(
        self, method: str, path: str, body: Json = None, wait: int | None = 60, **query: str
    ) -> tuple[int, Json]:
        """Ask the engine; return its answer's status and JSON, or what else it is, as `raw`."""
        timeout = aiohttp.ClientTimeout(total=wait)
        async with self.session.request(method, self.prefix + path, json=body, params=query, timeout=timeout) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else {"raw": await answer.read()}

    async def negotiate(self) -> None:
        """Choose the version of the engine's API that is spoken on both sides from now on."""
        try:
            _, answer = await self.engine("GET", "/version")
        except (aiohttp.ClientError, TimeoutError) as error:
            sys.exit(f"The gate stays shut. No Docker engine answers: {error}")
        oldest, newest = (tuple(map(int, answer[key].split("."))) for key in ("MinAPIVersion", "ApiVersion"))
        self.api = ".".join(map(str, min(newest, max(oldest, API_VERSION))))
        self.prefix = f"/v{self.api}"

    async def version(self, _body: bytes) -> Answer:
        """Say which API the gate speaks."""
        return 200, {"ApiVersion": self.api, "MinAPIVersion": self.api}, ""

    async def create(self, body: bytes) -> Answer:
        """Create a run container, unless too many live already."""
        async with self.creating:
            filled = self.fill(body)
            if await self.count_live() >= self.most:
                raise RefusedError(429, f"{self.most} run containers live already, the most there may be")
            status, answer = await self.engine("POST", "/containers/create", filled)
        if status == 404:  # which would make the launcher pull
            status, answer = 409, {"message": f"the engine has no image {filled['Image']}: build it"}
        if status != 201:
            return outcome(status, answer)
        return (
            201,
            {"Id": answer["Id"], "Warnings": []},
            f"{answer['Id'][:12]} run={filled['Labels']['dagster/run_id']}",
        )

    def fill(self, body: bytes) -> dict[str, Json]:
        """Return the body to send for the body that a client sent, or refuse."""
        try:
            asked = read(body.decode())
            image = asked.get("Image") if isinstance(asked, dict) else None
            name, _, tag = image.partition(":") if isinstance(image, str) else ("", "", "")
            if name not in self.templates or not re.fullmatch(TAG, tag):
                raise RefusedError(403, "not an image of this deployment")
            filled = self.templates[name].fill({**asked, "Image": name})
        except (ValueError, AttributeError, RecursionError):
            raise RefusedError(400, "not JSON of the right form") from None
        return {**filled, "Image": image, "Labels": {**filled["Labels"], OWNER: self.owner}}

    async def list_own(self, *states: str) -> list[dict[str, Json]]:
        """List this deployment's run containers in these states."""
        own = {"label": [f"{OWNER}={self.owner}"], "status": states}
        status, containers = await self.engine("GET", "/containers/json", all="1", filters=json.dumps(own))
        if status != 200:
            raise RefusedError(502, "the engine does not list its containers")
        return list(containers)

    async def count_live(self) -> int:
        """Count the run containers that run or may still be started; remove the forgotten."""
        containers = await self.list_own("created", *STARTED)
        for container in containers:
            if container["State"] == "created" and time.time() - container["Created"] > FORGOTTEN:
                await self.engine("DELETE", f"/containers/{container['Id']}")
                log.info("removed %s, which was never started", container["Id"][:12])
        return len(containers)

    async def find(self, container: str) -> dict[str, Json]:
        """Return one of this deployment's run containers; any other is as if absent."""
        status, found = await self.engine("GET", f"/containers/{container}/json")
        if status not in (200, 404):
            raise RefusedError(502, "the engine does not tell")
        if status == 404 or (found["Config"]["Labels"] or {}).get(OWNER) != self.owner:
            raise RefusedError(404, f"No such container: {container}")
        return dict(found)

    async def inspect(self, _body: bytes, container: str) -> Answer:
        """Tell a run container's state, and that it has no terminal, and nothing else of it."""
        state = (await self.find(container))["State"]
        told = {key: state[key] for key in STATE & state.keys()}
        return 200, {"Id": container, "State": told, "Config": {"Tty": False}}, ""

    async def start(self, _body: bytes, container: str) -> Answer:
        """Start a run container, once: `create` does not count those that ended."""
        if container in self.starting:
            raise RefusedError(409, "it is starting")
        self.starting.add(container)
        try:
            if (await self.find(container))["State"]["Status"] not in ("created", "running"):
                raise RefusedError(409, "it has run")
            try:
                return outcome(*await self.engine("POST", f"/containers/{container}/start"))
            finally:  # even if the engine's answer is lost
                self.attend(container)
        finally:
            self.starting.remove(container)

    async def stop(self, _body: bytes, container: str, seconds: str | None) -> Answer:
        """Stop a run container, by force if it takes longer than that."""
        await self.find(container)
        self.stopped.add(container)
        query = {"t": seconds} if seconds else {}
        return outcome(
            *await self.engine("POST", f"/containers/{container}/stop", wait=60 + int(seconds or 10), **query)
        )

    async def logs(self, _body: bytes, container: str) -> Answer:
        """Tell the last lines that an ended run container printed, as the engine frames them: 16 KiB each at most."""
        if (await self.find(container))["State"]["Status"] not in ENDED:
            raise RefusedError(409, "it has not ended")
        path = f"/containers/{container}/logs"
        status, answer = await self.engine("GET", path, stdout="1", stderr="1", tail="20")
        if status != 200:
            return outcome(status, answer)
        if (read := self.read.get(container)) and not read.is_set():
            read.set()
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):  # its name tells the next gate
                await self.engine("POST", f"/containers/{container}/rename", name=f"{READ}{container[:12]}")
        return 200, answer["raw"], ""

    async def take_over(self) -> None:
        """Attend to the run containers that a gate before this one attended to."""
        for container in await self.list_own(*STARTED, *ENDED):
            self.attend(container["Id"], read=container["Names"][0].startswith(f"/{READ}"))

    def attend(self, container: str, *, read: bool = False) -> None:
        """See that a run container of this deployment is buried, whose last lines may have been read already."""
        if container not in self.burials:
            self.read[container] = asyncio.Event()
            if read:
                self.read[container].set()
            self.burials[container] = asyncio.create_task(self.bury(container))

    async def bury(self, container: str) -> None:
        """Wait for a container's end, and then for whoever wants to know why; remove it. The engine may come and go."""
        read, gone = self.read[container], False
        while not gone:
            try:
                status, end = await self.engine("POST", f"/containers/{container}/wait", wait=None)
                if status == 200:
                    died = (end or {}).get("StatusCode") != 0 and container not in self.stopped
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(read.wait(), UNREAD if died else KEPT)
                        await asyncio.sleep(KEPT)
                status, _ = await self.engine("DELETE", f"/containers/{container}", v="1")  # without force
                gone = status in (204, 404)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("waiting for the end of %s: %s", container[:12], type(error).__name__)
            if not gone:
                await asyncio.sleep(5)
        log.info("removed %s, which has ended", container[:12])
        del self.burials[container], self.read[container]
        self.stopped.discard(container)


def outcome(status: int, answer: Json) -> Answer:
    """Tell that it is done, or was done before; else tell the client why not, and the log only that it is so."""
    if status in (204, 304):
        return status, None, ""
    return status, {"message": str(answer.get("message"))}, "failed in the engine"


class Door(web.Server):
    """One socket: who can open it has its rights."""

    def __init__(self, name: str, gate: Gate) -> None:
        """Lead to the gate, with the rights of this name."""
        super().__init__(self.answer)
        self.name = name
        prefix = re.escape(gate.prefix)
        self.routes = [
            (re.compile(ROUTES[what].replace("PREFIX", prefix)), getattr(gate, what)) for what in DOORS[name]
        ]
        self.waiting: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    def __call__(self) -> web.RequestHandler:
        """Welcome a client."""
        return Connection(self)

    def listen(self, connection: web.RequestHandler) -> None:
        """Give a client time to say all it wants."""
        self.waiting[connection] = asyncio.get_running_loop().call_later(PATIENCE, self.cut, connection)
        if len(self.connections) > MOST_CLIENTS:
            self.cut(next(iter(self.waiting)))

    def heard(self, connection: web.RequestHandler) -> None:
        """Wait no longer."""
        if timer := self.waiting.pop(connection, None):
            timer.cancel()

    def cut(self, connection: web.RequestHandler) -> None:
        """Give a client up."""
        self.heard(connection)
        log.info("%s 408 cut off, its request was not complete", self.name)
        if connection.transport:
            connection.transport.abort()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Do what is asked or refuse it, and log which in one line."""
        began = time.monotonic()
        try:
            ask = self.route(request)
            body = await request.read()
            self.heard(request.protocol)
            status, answer, note = await ask(body)
        except RefusedError as refused:
            status, answer, note = refused.status, {"message": str(refused)}, f"refused: {refused}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            status, answer, note = 503, {"message": "the engine does not answer"}, type(error).__name__
        except Exception as error:  # its traceback would quote the request
            status, answer, note = 500, {"message": "the gate failed"}, type(error).__name__
        finally:
            self.heard(request.protocol)
        asked = f"{request.method} {request.raw_path.partition('?')[0]}"[:150]
        log.info("%s %d %r %.0f ms %s", self.name, status, asked, (time.monotonic() - began) * 1000, note)
        if isinstance(answer, dict):
            response = web.json_response(answer, status=status)
        else:
            response = web.Response(status=status, body=answer)
        response.force_close()
        return response

    def route(self, request: web.BaseRequest) -> Callable[[bytes], Awaitable[Answer]]:
        """Find out what is asked for, or refuse, before any body is read."""
        names = [name.lower() for name in request.headers]
        if len(set(names)) < len(names) or not HEADERS.issuperset(names):
            raise RefusedError(403, "a header that does not belong here")
        for pattern, ask in self.routes:
            if found := pattern.fullmatch(f"{request.method} {request.raw_path}"):
                expected = range(1, LARGEST_BODY + 1) if ask.__name__ == "create" else range(1)
                if (request.content_length or 0) not in expected:
                    raise RefusedError(413, "a body that is too large, is missing, or does not belong here")
                return lambda body: ask(body, **found.groupdict())
        raise RefusedError(403, "not allowed")


class Connection(web.RequestHandler):
    """A client at a door: one request, one answer."""

    def __init__(self, door: Door) -> None:
        """Stand at a door, with little to say."""
        super().__init__(
            door,
            loop=asyncio.get_running_loop(),
            max_line_size=256,
            max_field_size=1024,
            max_headers=16,
            read_bufsize=8192,
            lingering_time=0,
            auto_decompress=False,
        )
        self.door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to listen."""
        super().connection_made(transport)
        self.door.listen(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Listen no longer."""
        self.door.heard(self)
        super().connection_lost(exc)

    def handle_error(self, *_: object, **__: object) -> web.Response:
        """Refuse what is not HTTP, without quoting it as aiohttp does."""
        log.info("%s 400 refused: not HTTP", self.door.name)
        response = web.json_response({"message": "not HTTP"}, status=400)
        response.force_close()
        return response


async def serve(*runs: str) -> None:
    """Open both doors until told to stop. SystemExit if a setting or the description of a run container is unsafe."""
    if not re.fullmatch("[0-9]{1,4}", os.environ["MAX_CONCURRENT_RUNS"]):
        sys.exit("The gate stays shut. Set MAX_CONCURRENT_RUNS in .env to a whole number, such as 4.")
    # A container lives on for a moment when its run is over for Dagster: hence twice as many.
    most = 2 * int(os.environ["MAX_CONCURRENT_RUNS"])
    gate = Gate(os.environ.get("ENGINE_SOCKET", "/var/run/docker.sock"), os.environ["OWNER"], most)
    async with gate.session:
        await gate.negotiate()
        for image, description in zip(runs[::2], runs[1::2], strict=True):
            try:
                gate.templates[image] = Template(image, description, gate.api)
            except (ValueError, TypeError) as error:
                sys.exit(f"The gate stays shut. In docker-compose.yml, where runs of {image} are described:\n{error}")
        await gate.take_over()
        await stand_open(gate)


async def stand_open(gate: Gate) -> None:
    """Keep both doors open until told to stop; then let requests end that were begun."""
    runners = []
    for name in DOORS:
        path = Path(os.environ.get("GATE_SOCKETS", "/run/gate"), name, "docker.sock")
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o666)  # who can open it is decided by who mounts its directory
        runners.append(web.ServerRunner(Door(name, gate), shutdown_timeout=10))
        await runners[-1].setup()
        await web.SockSite(runners[-1], listener, backlog=64).start()  # takes in 64 at a time
        listener.listen(4096)  # and lets so many queue
    log.info("open: API %s, at most %d runs of %s", gate.api, gate.most, ", ".join(gate.templates))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await asyncio.gather(*(runner.cleanup() for runner in runners))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL + 1)  # its tracebacks quote requests
    asyncio.run(serve(*sys.argv[1:]))
