#!/usr/bin/env python
"""Exit with 0 if the named service is healthy, with an error otherwise. The names stand at the end.

Dagster's own commands for this load all of Dagster: 1.3 to 2.1 s of CPU each time, against at most 0.2 s here.
"""

import sys
import time
from pathlib import Path

TIMEOUT = 4  # seconds
LATE = 35  # seconds, for a heartbeat of the daemon
HUNG = 600  # seconds, for that of one thread alone: a tick may take long
NOT_ITS_FAULT = 75  # the exit code for which deploy/container/check does not kill the service


def dagit() -> None:
    """Ask the web server's event loop for its version."""
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", 3000, timeout=TIMEOUT)
    connection.request("GET", "/server_info")
    status = connection.getresponse().status
    if status != 200:
        sys.exit(f"/server_info answered {status}")


def daemon() -> None:
    """Look in the database for the heartbeat of every thread of the running daemon.

    One is due every 30 s; the scheduler's, which sleeps from minute to minute, every 60 s. One thread may be late, as
    when a tick takes long; if all are late, the process hangs. While the database is down, and until the threads had
    time to reconnect, they cannot be judged.
    """
    import psycopg2

    away = Path("/dev/shm/away")
    try:
        with psycopg2.connect(
            service="dagster", connect_timeout=TIMEOUT, options=f"-c statement_timeout={TIMEOUT}s"
        ) as connection:
            cursor = connection.cursor()
            cursor.execute(
                """
                SELECT min(age), max(age) FROM (
                    SELECT extract(epoch FROM localtimestamp - timestamp) - (daemon_type = 'SCHEDULER')::int * 30 AS age
                    FROM daemon_heartbeats
                    WHERE daemon_id = (SELECT daemon_id FROM daemon_heartbeats ORDER BY timestamp DESC LIMIT 1)
                ) AS ages
                """
            )
            ((youngest, oldest),) = cursor.fetchall()
    except psycopg2.OperationalError as error:
        away.touch()
        print(error)
        sys.exit(NOT_ITS_FAULT)
    if oldest is None or oldest > LATE:
        print("no heartbeat yet" if oldest is None else f"a thread's last heartbeat is {oldest:.0f} s old")
        is_back = away.exists() and time.time() - away.stat().st_mtime < LATE
        hangs = oldest is None or youngest > LATE or oldest > HUNG
        sys.exit(NOT_ITS_FAULT if is_back or not hangs else 1)


def gate() -> None:
    """Ask through the gate for a container that the engine does not have: all the way there and back."""
    import json
    import socket
    from http.client import HTTPConnection, HTTPResponse

    def ask(path: str) -> HTTPResponse:
        connection = HTTPConnection("gate")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT)
        connection.sock.connect("/run/gate/stop/docker.sock")
        connection.request("GET", path)
        return connection.getresponse()

    version = json.load(ask("/version"))["ApiVersion"]
    status = ask(f"/v{version}/containers/{'0' * 64}/json").status
    if status != 404:
        sys.exit(f"instead of 404 the gate answered {status}")


def check_code(name: str) -> None:
    """Make the gRPC health check of the code server at the socket of this name."""
    path = Path(f"/run/user_code/{name}.sock")
    if not path.exists():  # the imports below take a core from what is starting
        sys.exit(f"{path} is not there yet")
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"unix:{path}") as channel:
        request = health_pb2.HealthCheckRequest(service="DagsterApi")
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT)  # type: ignore[attr-defined]
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        sys.exit(f"the code server is not serving: {answer}")


def user_code() -> None:
    """Check this container's own code server."""
    import socket

    check_code(socket.gethostname())


def code_location() -> None:
    """Check the code server that clients connect to, from any container."""
    check_code("grpc")


if __name__ == "__main__":
    services = {"dagit": dagit, "dagster-daemon": daemon, "gate": gate, "user_code": user_code}
    (services | {"code_location": code_location})[sys.argv[1]]()
