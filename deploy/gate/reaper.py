"""Removes run containers after their end."""

import asyncio
import contextlib
import logging
import time
from pathlib import Path

import aiohttp

from gate.engine import ENDED, STARTED, Engine
from gate.strict_json import Json

KEEP_UNSTARTED = 300  # seconds after which a container that was created but never started is removed
KEEP_ENDED = 60  # seconds that an ended one is kept: for Dagster, which may not know yet that it ended
KEEP_UNREAD = 24 * 3600  # and a failed one until its last lines are read, or for so long
MOST_UNREAD = 50  # of those; beyond that, the first to fail is removed: each may have a log of 30 MB

log = logging.getLogger("gate")


class Reaper:
    """Watches each run container that was started, and removes it when it is done.

    `directory` holds an empty file for each container whose last lines were read: the next gate must know it too.
    """

    def __init__(self, engine: Engine, directory: Path) -> None:
        """Watch no container yet."""
        self.engine, self.directory = engine, directory
        self.tasks: dict[str, asyncio.Task[None]] = {}  # by container
        self.lines_read: dict[str, asyncio.Event] = {}
        self.unread: dict[str, asyncio.Event] = {}  # of failed ones, the first to fail first
        self.stopped: set[str] = set()

    async def take_over(self) -> None:
        """Track the run containers that were there before this gate; forget those that are gone."""
        there = {str(container["Id"]) for container in await self.engine.list_runs(*STARTED, *ENDED)}
        for container in there:
            self.track(container)
        for mark in self.directory.iterdir():
            if mark.name not in there:
                mark.unlink()

    def track(self, container: str) -> None:
        """See to it that a container is removed when it is done."""
        if container not in self.tasks:
            self.lines_read[container] = asyncio.Event()
            if (self.directory / container).exists():
                self.lines_read[container].set()
            self.tasks[container] = asyncio.create_task(self.remove_when_done(container))

    def mark_stopped(self, container: str) -> None:
        """Note that nobody will ask why a container ended."""
        self.stopped.add(container)

    def mark_lines_read(self, container: str) -> None:
        """Note that the last lines of a container were read, also for the next gate."""
        if (read := self.lines_read.get(container)) and not read.is_set():
            read.set()
            with contextlib.suppress(OSError):  # the next gate then keeps it for a day
                (self.directory / container).touch()

    async def remove_when_done(self, container: str) -> None:
        """Wait for a container's end, then for a reader of its last lines; remove it. The engine may come and go."""
        gone = False
        while not gone:
            try:
                status, end = await self.engine.ask("POST", f"/containers/{container}/wait", wait=None)
                if status == 200:
                    failed = (end or {}).get("StatusCode") != 0 and container not in self.stopped
                    if failed and not self.lines_read[container].is_set():
                        self.unread[container] = self.lines_read[container]
                        if len(self.unread) > MOST_UNREAD:
                            self.unread.pop(next(iter(self.unread))).set()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.lines_read[container].wait(), KEEP_UNREAD if failed else KEEP_ENDED)
                        self.unread.pop(container, None)
                        await asyncio.sleep(KEEP_ENDED)
                status, _ = await self.engine.ask("DELETE", f"/containers/{container}", v="1")  # without force
                gone = status in (204, 404)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("waiting for the end of %s: %s", container[:12], type(error).__name__)
            if not gone:
                await asyncio.sleep(5)
        log.info("removed %s, which has ended", container[:12])
        (self.directory / container).unlink(missing_ok=True)
        del self.tasks[container], self.lines_read[container]
        self.unread.pop(container, None)
        self.stopped.discard(container)

    async def remove_unstarted(self, containers: list[dict[str, Json]]) -> None:
        """Remove those of these containers that were created some time ago and never started."""
        for container in containers:
            if container["State"] == "created" and time.time() - container["Created"] > KEEP_UNSTARTED:
                await self.engine.ask("DELETE", f"/containers/{container['Id']}")
                log.info("removed %s, which was never started", container["Id"][:12])
