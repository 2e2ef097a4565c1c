"""The client of the Docker engine."""

import json
import sys
from types import TracebackType
from typing import Self

import aiohttp

from gate.errors import RefusedError
from gate.strict_json import Json

API_VERSION = (1, 44)  # the engine is spoken to in this one, or in the nearest that it knows
LABEL = "deployable-dagster.gate"  # on each run container; its value is the Compose project
STARTED, ENDED = ("running", "paused", "restarting"), ("exited", "dead")


class Engine:
    """The Docker engine, and the run containers of one Compose project in it."""

    def __init__(self, path: str, project: str) -> None:
        """Use the engine's socket at this path."""
        connector = aiohttp.UnixConnector(path, limit=0)
        self.session = aiohttp.ClientSession("http://engine", connector=connector)
        self.project = project
        self.api, self.prefix = "", ""

    async def __aenter__(self) -> Self:
        """Choose the version of the API that both sides know. SystemExit if no engine answers."""
        try:
            _, answer = await self.ask("GET", "/version")
        except (aiohttp.ClientError, TimeoutError) as error:
            await self.session.close()
            sys.exit(f"The gate refuses to start. No Docker engine answers: {error}")
        oldest, newest = (tuple(map(int, answer[key].split("."))) for key in ("MinAPIVersion", "ApiVersion"))
        self.api = ".".join(map(str, min(newest, max(oldest, API_VERSION))))
        self.prefix = f"/v{self.api}"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close every connection."""
        await self.session.close()

    async def ask(
        self, method: str, path: str, body: Json = None, wait: int | None = 60, **query: str
    ) -> tuple[int, Json]:
        """Send a request; return its answer's status and JSON, or what else it is, as `raw`."""
        timeout = aiohttp.ClientTimeout(total=wait)
        async with self.session.request(method, self.prefix + path, json=body, params=query, timeout=timeout) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else {"raw": await answer.read()}

    async def list_containers(self, *labels: str, states: tuple[str, ...] = ()) -> list[dict[str, Json]]:
        """List the containers with these labels, in these states or all."""
        filters = json.dumps({"label": labels, "status": states})
        status, containers = await self.ask("GET", "/containers/json", all="1", filters=filters)
        if status != 200:
            raise RefusedError(502, "the engine does not list its containers")
        return list(containers)

    async def list_runs(self, *states: str) -> list[dict[str, Json]]:
        """List the project's run containers in these states."""
        return await self.list_containers(f"{LABEL}={self.project}", states=states)

    async def inspect(self, container: str) -> dict[str, Json] | None:
        """Return what the engine knows of a container, if there is one."""
        status, found = await self.ask("GET", f"/containers/{container}/json")
        if status not in (200, 404):
            raise RefusedError(502, "the engine does not tell")
        return dict(found) if status == 200 else None

    async def inspect_run(self, container: str) -> dict[str, Json]:
        """Return one of the project's run containers; any other is as if absent."""
        found = await self.inspect(container)
        if not found or (found["Config"]["Labels"] or {}).get(LABEL) != self.project:
            raise RefusedError(404, f"No such container: {container}")
        return found
