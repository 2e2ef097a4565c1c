"""The two sockets at which clients ask, and what may be asked at which."""

import asyncio
import logging
import re
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from aiohttp import web

from gate.errors import RefusedError
from gate.runs import Answer, Runs

HEADERS = {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent"}
LARGEST_BODY = 64 * 1024  # bytes; the launcher's requests have 2,000
MOST_CLIENTS = 256  # at one door at a time; beyond that, the oldest with an incomplete request is dropped
PATIENCE = 5  # seconds in which a request must be complete

# What may be asked, by method, path and query exactly as written; and at which door. dagster-daemon stops runs too:
# those that exceed their time, and those of a backfill that is cancelled.
CONTAINER = "/containers/(?P<container>[0-9a-f]{64})"
ROUTES = {
    "version": "GET /version",
    "create": "POST PREFIX/containers/create",
    "inspect": f"GET PREFIX{CONTAINER}/json",
    "start": f"POST PREFIX{CONTAINER}/start",
    "stop": rf"POST PREFIX{CONTAINER}/stop(\?t=(?P<seconds>[0-9]{{1,2}}))?",
    "logs": rf"GET PREFIX{CONTAINER}/logs\?stderr=1&stdout=1&timestamps=0&follow=0&tail=20",
}
DOORS = {"launch": list(ROUTES), "stop": ["version", "inspect", "stop"]}

log = logging.getLogger("gate")


class Door(web.Server):
    """One socket: who can open it has its rights."""

    def __init__(self, name: str, runs: Runs) -> None:
        """Allow what DOORS lists for this name."""
        super().__init__(self.answer)
        self.name = name
        prefix = re.escape(runs.engine.prefix)
        self.routes = [
            (re.compile(ROUTES[what].replace("PREFIX", prefix)), getattr(runs, what)) for what in DOORS[name]
        ]
        self.deadlines: dict[web.RequestHandler, asyncio.TimerHandle] = {}  # of those with an incomplete request

    def __call__(self) -> web.RequestHandler:
        """Accept a connection."""
        return Connection(self)

    def set_deadline(self, connection: web.RequestHandler) -> None:
        """Give a client time to send its request."""
        self.deadlines[connection] = asyncio.get_running_loop().call_later(PATIENCE, self.drop, connection)
        if len(self.connections) > MOST_CLIENTS:
            self.drop(next(iter(self.deadlines)))

    def clear_deadline(self, connection: web.RequestHandler) -> None:
        """Note that a request is complete, or that nobody waits for it any more."""
        if timer := self.deadlines.pop(connection, None):
            timer.cancel()

    def drop(self, connection: web.RequestHandler) -> None:
        """Close the connection of a client whose request is not complete."""
        self.clear_deadline(connection)
        log.info("%s 408 cut off, its request was not complete", self.name)
        if connection.transport:
            connection.transport.abort()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Do what is asked or refuse it, and log which in one line."""
        began = time.monotonic()
        try:
            ask = self.route(request)
            body = await request.read()
            self.clear_deadline(request.protocol)
            status, answer, note = await ask(body)
        except RefusedError as refused:
            status, answer, note = refused.status, {"message": str(refused)}, f"refused: {refused}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            status, answer, note = 503, {"message": "the engine does not answer"}, type(error).__name__
        except Exception as error:  # its traceback would quote the request
            status, answer, note = 500, {"message": "the gate failed"}, type(error).__name__
        finally:
            self.clear_deadline(request.protocol)
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
        """Accept small requests only."""
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
        """Start the clock."""
        super().connection_made(transport)
        self.door.set_deadline(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clock."""
        self.door.clear_deadline(self)
        super().connection_lost(exc)

    def handle_error(self, *_: object, **__: object) -> web.Response:
        """Refuse what is not HTTP, without quoting it as aiohttp does."""
        log.info("%s 400 refused: not HTTP", self.door.name)
        response = web.json_response({"message": "not HTTP"}, status=400)
        response.force_close()
        return response


async def serve(runs: Runs, directory: Path) -> None:
    """Keep both doors open until told to stop; then let requests end that were begun."""
    runners = []
    for name in DOORS:
        path = directory / name / "docker.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o666)  # who can open it is decided by who mounts its directory
        runners.append(web.ServerRunner(Door(name, runs), shutdown_timeout=10))
        await runners[-1].setup()
        await web.SockSite(runners[-1], listener, backlog=64).start()  # takes in 64 at a time
        listener.listen(4096)  # and lets so many queue
    images = ", ".join(sorted(runs.code_servers.known)) or "no image yet"
    log.info("open: API %s, at most %d runs of %s", runs.engine.api, runs.maximum, images)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await asyncio.gather(*(runner.cleanup() for runner in runners))
