"""Finds the code server whose runs are asked for."""

import re

from gate import template
from gate.engine import STARTED, Engine
from gate.errors import RefusedError
from gate.strict_json import Json
from gate.template import Template


class CodeServers:
    """The project's containers of services with the label `deployable-dagster.run.memory`: code servers."""

    def __init__(self, engine: Engine) -> None:
        """Know no code server yet."""
        self.engine = engine
        self.repositories: dict[str, str] = {}  # the image of each, without its tag, by container
        self.known: set[str] = set()  # and of those that were there before
        self.templates: dict[str, Template] = {}  # by container

    async def refresh(self) -> list[dict[str, Json]]:
        """List all code servers, newest first."""
        own = f"com.docker.compose.project={self.engine.project}"
        servers = await self.engine.list_containers(own, "com.docker.compose.oneoff=False", template.MEMORY)
        there = {server["Id"] for server in servers}
        for known in (self.repositories, self.templates):
            for gone in known.keys() - there:
                del known[gone]
        for new in there - self.repositories.keys():
            if server := await self.engine.inspect(new):
                self.repositories[new] = re.sub(":[^:/]*$", "", server["Config"]["Image"])
        self.known.update(self.repositories.values())
        number = "com.docker.compose.container-number"
        return sorted(servers, key=lambda server: (server["Created"], server["Labels"].get(number, "")), reverse=True)

    async def get_template(self, repository: str) -> Template:
        """Return what the runs of this image are made from: the newest of its code servers that is running."""
        servers = await self.refresh()
        if self.known and repository not in self.known:
            raise RefusedError(403, "not the image of a code location")
        for server in servers:
            if server["State"] in STARTED and self.repositories.get(server["Id"]) == repository:
                return self.templates.get(server["Id"]) or await self.make_template(server["Id"])
        raise RefusedError(503, "no code server of this image is running")

    async def make_template(self, container: str) -> Template:
        """Make the template of a code server, which is the same for all its life; or refuse."""
        if not (server := await self.engine.inspect(container)):
            raise RefusedError(503, "the code server has just been removed")
        if problems := await self.find_problems(server):
            raise RefusedError(403, f"unsafe for runs. {name(server)} in docker-compose.yml: {'; '.join(problems)}")
        _, image = await self.engine.ask("GET", f"/images/{server['Image']}/json")
        self.templates[container] = template.make(server, image["Config"]["Env"] or [])
        return self.templates[container]

    async def find_problems(self, server: Json) -> list[str]:
        """Say what to change in the service of a code server."""
        devices = {}
        for mount in server["Mounts"]:
            if mount["Type"] == "volume" and re.fullmatch(template.NAMED, mount["Name"], re.ASCII):
                _, volume = await self.engine.ask("GET", f"/volumes/{mount['Name']}")
                options = volume.get("Options") or {}
                if "bind" in options.get("o", ""):
                    devices[mount["Name"]] = options.get("device", "")
        return template.find_problems(server, devices)

    async def find_newest(self) -> list[str]:
        """Return the newest code server of each service, which may not be running yet."""
        service = "com.docker.compose.service"
        return list({server["Labels"][service]: server["Id"] for server in reversed(await self.refresh())}.values())

    async def explain(self, containers: list[str]) -> str:
        """Say what to change in the services of these code servers."""
        lines = []
        for container in containers:
            if server := await self.engine.inspect(container):
                lines += [f"  {name(server)}: {problem}" for problem in await self.find_problems(server)]
        return "\n".join(lines)


def name(server: Json) -> str:
    """Return the name of a code server's service."""
    return str(server["Config"]["Labels"]["com.docker.compose.service"])
