"""What a client may ask for."""

import asyncio

from gate.code_servers import CodeServers
from gate.engine import ENDED, LABEL, STARTED, Engine
from gate.errors import RefusedError
from gate.reaper import Reaper
from gate.request import RunRequest
from gate.strict_json import Json

STATE = {"Status", "Running", "Paused", "OOMKilled", "Dead", "ExitCode", "Error", "StartedAt", "FinishedAt"}

Answer = tuple[int, dict[str, Json] | bytes | None, str]  # status, body, what the log says of it


class Runs:
    """The run containers of the deployment, each method a request that a client may make."""

    def __init__(self, engine: Engine, reaper: Reaper, code_servers: CodeServers, maximum: int) -> None:
        """Launch the runs of these code servers, and at most so many at a time."""
        self.engine, self.reaper, self.code_servers, self.maximum = engine, reaper, code_servers, maximum
        self.creating = asyncio.Lock()
        self.starting: set[str] = set()

    async def version(self, _body: bytes) -> Answer:
        """Tell which API the gate speaks."""
        return 200, {"ApiVersion": self.engine.api, "MinAPIVersion": self.engine.api}, ""

    async def create(self, body: bytes) -> Answer:
        """Create a run container like that of its code server, unless too many live already."""
        run = RunRequest.parse(body)
        async with self.creating:
            template, live = await asyncio.gather(
                self.code_servers.get_template(run.repository), self.engine.list_runs("created", *STARTED)
            )
            await self.reaper.remove_unstarted(live)
            if len(live) >= self.maximum:
                raise RefusedError(429, f"{self.maximum} run containers live already, the most there may be")
            status, answer = await self.engine.ask(
                "POST", "/containers/create", template.fill(run, {LABEL: self.engine.project})
            )
        if status == 404:  # which would make the launcher pull
            status = 409
            if "image" in answer["message"]:
                answer = {"message": f"the engine has no image {run.repository}:{run.tag}: build it"}
        if status != 201:
            return outcome(status, answer)
        container = answer["Id"]
        for network in template.networks:  # engines before 25 take one network when they create a container
            status, answer = await self.engine.ask("POST", f"/networks/{network}/connect", {"Container": container})
            if status != 200:
                await self.engine.ask("DELETE", f"/containers/{container}", v="1")
                raise RefusedError(502, f"its code server's networks cannot be joined: {answer.get('message')}")
        return 201, {"Id": container, "Warnings": []}, f"{container[:12]} run={run.run_id}"

    async def inspect(self, _body: bytes, container: str) -> Answer:
        """Tell a run container's state, and that it has no terminal, and nothing else of it."""
        state = (await self.engine.inspect_run(container))["State"]
        told = {key: state[key] for key in STATE & state.keys()}
        return 200, {"Id": container, "State": told, "Config": {"Tty": False}}, ""

    async def start(self, _body: bytes, container: str) -> Answer:
        """Start a run container, once: `create` does not count those that ended."""
        if container in self.starting:
            raise RefusedError(409, "it is starting")
        self.starting.add(container)
        try:
            if (await self.engine.inspect_run(container))["State"]["Status"] not in ("created", "running"):
                raise RefusedError(409, "it has run")
            try:
                return outcome(*await self.engine.ask("POST", f"/containers/{container}/start"))
            finally:  # even if the engine's answer is lost
                self.reaper.track(container)
        finally:
            self.starting.remove(container)

    async def stop(self, _body: bytes, container: str, seconds: str | None) -> Answer:
        """Stop a run container, by force if it takes longer than that."""
        found = await self.engine.inspect_run(container)
        self.reaper.mark_stopped(container)
        query, wait = {"t": seconds} if seconds else {}, 60 + int(seconds or found["Config"].get("StopTimeout") or 10)
        return outcome(*await self.engine.ask("POST", f"/containers/{container}/stop", wait=wait, **query))

    async def logs(self, _body: bytes, container: str) -> Answer:
        """Tell the last lines that an ended run container printed, as the engine frames them: 16 KiB each at most."""
        if (await self.engine.inspect_run(container))["State"]["Status"] not in ENDED:
            raise RefusedError(409, "it has not ended")
        path = f"/containers/{container}/logs"
        status, answer = await self.engine.ask("GET", path, stdout="1", stderr="1", tail="20")
        if status != 200:
            return outcome(status, answer)
        self.reaper.mark_lines_read(container)
        return 200, answer["raw"], ""


def outcome(status: int, answer: Json) -> Answer:
    """Tell that it is done, or was done before; else tell the client why not, and the log only that it is so."""
    if status in (204, 304):
        return status, None, ""
    return status, {"message": str(answer.get("message"))}, "failed in the engine"
