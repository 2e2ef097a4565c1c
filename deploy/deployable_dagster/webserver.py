"""Dagit's web server with a guard: no page of another site, open in somebody's browser, can use it.

Dagster's own (dagster_webserver/webserver.py and graphql.py, 1.13.27) answers to any Host, so also to a name of an
attacker that leads here; it executes mutations sent by GET or as text/plain, which browsers send for any page; and it
accepts WebSockets of every Origin. This module can go when it does not.
"""

import os
import re

from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

NAMES = {"localhost", "127.0.0.1", "[::1]", "dagit", "dagit-viewer"}


def refusal(request: HTTPConnection) -> str | None:
    """Return why a request is refused: its Host is not ours, or a page of another site made the browser send it."""
    headers = request.headers
    host = headers.get("Host", "").lower()
    name = re.sub(r":\d+$", "", host)
    if name not in NAMES | {os.environ.get("DAGIT_HOST", "").lower() or "localhost"}:
        return f"Dagit does not answer to the name {name!r}: if it is yours, set DAGIT_HOST to it."
    if any(origin.lower() not in (f"http://{host}", f"https://{host}") for origin in headers.getlist("Origin")):
        return "Dagit answers no page of another origin."
    follows_link = (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not (
        follows_link and request.scope.get("method") == "GET"
    ):
        return "Dagit answers no other site, except to links."
    return None


class Guard:
    """Refuses requests, WebSockets too, before Dagit sees them; and has no page of Dagit shown in a frame."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand in front of `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 403 and the reason, or let `app` answer."""

        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Frame-Options"] = "DENY"
                headers.append("Content-Security-Policy", "frame-ancestors 'none'")
            await send(message)

        reason = refusal(HTTPConnection(scope)) if scope["type"] != "lifespan" else None
        if reason is None:
            await self.app(scope, receive, send_unframed)
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)  # which uvicorn turns into a 403
        else:
            await PlainTextResponse(reason, 403)(scope, receive, send_unframed)


class GuardedWebserver(DagsterWebserver):  # type: ignore[type-arg]
    """Dagster's web server behind the guard, which executes only what no browser sends for a page without asking."""

    def build_middleware(self) -> list[Middleware]:
        """Put the guard in front."""
        return [Middleware(Guard), *super().build_middleware()]

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Answer a GET with a page only, and execute only what is sent as JSON or GraphQL."""
        media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and media_type not in ("application/json", "application/graphql"):
            return PlainTextResponse("Send the operation as application/json.", 415)
        if request.method == "GET" and "text/html" not in request.headers.get("Accept", ""):
            return PlainTextResponse("Send the operation by POST.", 405)
        answer: Response = await super().graphql_http_endpoint(request)
        return answer


def main() -> None:
    """Run the command dagster-webserver with the guarded web server."""
    vars(app)["DagsterWebserver"] = GuardedWebserver  # the command has no option for it
    cli.main()  # type: ignore[no-untyped-call]
