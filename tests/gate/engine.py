"""A Docker engine that does nothing but answer, and remember all it was asked."""

import contextlib
import copy
import json
import re
import socketserver
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

LABEL = "deployable-dagster.gate"
OWN, EXITED, FOREIGN, OTHER, SERVER = ("a1" * 32, "a2" * 32, "b1" * 32, "c1" * 32, "e1" * 32)
RUNS, WAREHOUSE = "01" * 32, "02" * 32  # networks
SECRET = "the-secret-of-a-container"
PRINTED = b"\x01\0\0\0\0\0\0\x05last\n"  # as the engine frames a line of stdout


# What `docker inspect` says of a code server to which its operator has given some of everything.
CODE_SERVER: dict[str, Any] = {
    "Created": "2026-01-01T00:00:00Z",
    "Image": "sha256:" + "5e" * 32,
    "State": {"Status": "running", "Running": True, "ExitCode": 0},
    "Config": {
        "Hostname": "e1e1e1e1e1e1",
        "Image": "project-user_code:1a2b3c4d5e6f",
        "User": "1000",
        "Env": [
            "PGHOST=postgres",
            f"CREDENTIALS={SECRET}",
            'TRICKY=a="b" $c\nd',
            "PATH=/venv/bin",
            "HOME=/scratch/home",
        ],
        "Cmd": ["serve-user-code"],
        "WorkingDir": "/opt/dagster",
        "Volumes": {"/scratch": {}, "/run/user_code": {}},
        "StopTimeout": 15,
        "Healthcheck": {"Test": ["CMD", "check"]},
        "Labels": {
            "com.docker.compose.project": "project",
            "com.docker.compose.service": "user_code",
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.container-number": "1",
            "com.docker.compose.config-hash": "0" * 64,
            "deployable-dagster.run.memory": "2g",
            "deployable-dagster.run.cpu-percent": "150",
            "deployable-dagster.run.pids": "512",
        },
    },
    "HostConfig": {
        "Binds": [
            "project_secret:/secret:ro",
            "/srv/input:/input:ro",
            f"{'4a' * 32}:/from-before:rw",
            "project_user_code:/run/user_code:rw",
        ],
        "Mounts": [
            {"Type": "volume", "Source": "project_data", "Target": "/data", "VolumeOptions": {}},
            {"Type": "volume", "Source": "4b" * 32, "Target": "/cache"},
            {"Type": "bind", "Source": "/home/operator/token", "Target": "/run/secrets/token", "ReadOnly": True},
        ],
        "NetworkMode": "project_runs",
        "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
        "RestartPolicy": {"Name": "unless-stopped"},
        "AutoRemove": False,
        "Privileged": False,
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "ReadonlyRootfs": True,
        "PidMode": "",
        "IpcMode": "private",
        "UTSMode": "",
        "UsernsMode": "",
        "CgroupnsMode": "host",
        "Init": True,
        "Tmpfs": {"/tmp": ""},
        "ShmSize": 67108864,
        "GroupAdd": ["44"],
        "ExtraHosts": ["warehouse.example:192.0.2.1"],
        "Dns": ["192.0.2.53"],
        "DnsOptions": None,
        "DnsSearch": [],
        "Sysctls": {"net.core.somaxconn": "64"},
        "Ulimits": [{"Name": "nofile", "Soft": 4096, "Hard": 4096}],
        "Devices": None,
        "DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
        "Runtime": "runc",
        "Memory": 1 << 30,
        "PidsLimit": 512,
        "MaskedPaths": ["/proc/kcore"],
    },
    "Mounts": [
        {"Type": "volume", "Name": "project_secret", "Source": "/var/lib/docker/volumes/x", "Destination": "/secret"},
        {"Type": "bind", "Source": "/srv/input", "Destination": "/input"},
        {"Type": "volume", "Name": "4a" * 32, "Source": "/var/lib/docker/volumes/y", "Destination": "/from-before"},
        {"Type": "volume", "Name": "project_user_code", "Source": "/var/lib", "Destination": "/run/user_code"},
        {"Type": "volume", "Name": "project_data", "Source": "/var/lib/docker/volumes/z", "Destination": "/data"},
        {"Type": "tmpfs", "Source": "", "Destination": "/cache"},
        {"Type": "bind", "Source": "/home/operator/token", "Destination": "/run/secrets/token"},
    ],
    "NetworkSettings": {
        "Networks": {
            "project_runs": {"NetworkID": RUNS, "Aliases": ["user_code"]},
            "warehouse": {"NetworkID": WAREHOUSE, "Aliases": ["user_code"]},
        }
    },
}


class Request(NamedTuple):
    """What the engine received."""

    method: str
    path: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


class FakeEngine:
    """Listens on a Unix socket in a directory; `requests` is all that it received, in order."""

    def __init__(self, directory: Path, newest: str = "1.41", oldest: str = "1.12") -> None:
        """Start to listen."""
        self.socket = str(directory / "engine.sock")
        self.versions = {"ApiVersion": newest, "MinAPIVersion": oldest}
        self.requests: list[Request] = []
        self.delay = 0.0
        self.images_exist = self.networks_exist = True
        self.volumes: dict[str, dict[str, str]] = {}  # the options of those that have some
        self.hiccups = 0  # how often to hang up on those who wait for a container's end
        self.closed = False
        self.lock = threading.Lock()
        self.containers: dict[str, dict[str, Any]] = {}
        self.add(OWN, {LABEL: "project"}, "running")
        self.add(EXITED, {LABEL: "project"}, "exited", code=137)
        self.add(FOREIGN, {}, "running")
        self.add(OTHER, {LABEL: "another-project"}, "running")
        self.add_code_server(SERVER)
        self.server = Server(self.socket, Handler)
        self.server.engine = self
        threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True).start()

    def add(self, id_: str, labels: dict[str, str], status: str, created: float | None = None, code: int = 0) -> None:
        """Have a container."""
        self.containers[id_] = {
            "Id": id_,
            "Name": f"/{id_[:12]}",
            "Created": "2026-01-01T00:00:00Z",
            "CreatedAt": time.time() if created is None else created,
            "State": {"Status": status, "Running": status == "running", "ExitCode": code, "Pid": 1},
            "Config": {"Labels": labels, "Env": [f"PASSWORD={SECRET}"], "Cmd": [SECRET]},
            "HostConfig": {"Binds": [SECRET]},
        }

    def add_code_server(self, id_: str, created: float = 0, **changes: dict[str, Any]) -> None:
        """Have a code server, with some of its Config, HostConfig, … changed."""
        self.containers[id_] = copy.deepcopy(CODE_SERVER) | {"Id": id_, "CreatedAt": created}
        for part, values in changes.items():
            self.containers[id_][part] |= copy.deepcopy(values)

    def close(self) -> None:
        """Listen no more, and leave those who are connected without an answer."""
        self.closed = True
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: Request) -> tuple[int, Any]:  # noqa: PLR0911, PLR0912 - one for each call
        """Answer as the engine would, as far as the gate asks it."""
        with self.lock:
            self.requests.append(request)
        path = re.sub(r"^/v[0-9.]+", "", urlsplit(request.path).path)
        query = parse_qs(urlsplit(request.path).query)
        if path == "/version":
            return 200, self.versions
        if path == "/containers/json":
            filters = json.loads(query["filters"][0])
            return 200, [
                {**c, "State": c["State"]["Status"], "Created": c["CreatedAt"], "Labels": labels}
                for c in list(self.containers.values())
                if (labels := c["Config"]["Labels"]) is not None
                and {*filters["label"]} <= {*labels, *(f"{key}={value}" for key, value in labels.items())}
                and (not filters["status"] or c["State"]["Status"] in filters["status"])
            ]
        if path.startswith("/images/sha256:"):
            return 200, {"Config": {"Env": ["PATH=/venv/bin"]}}
        if path.startswith("/volumes/"):
            return 200, {"Options": self.volumes.get(path.rpartition("/")[2])}
        if re.fullmatch("/networks/[0-9a-f]{64}/connect", path):
            return (200, {"done": True}) if self.networks_exist else (404, {"message": "network not found"})
        if path == "/containers/create":
            if not self.images_exist:
                return 404, {"message": "No such image: x"}
            time.sleep(self.delay)
            with self.lock:
                id_ = f"{len(self.requests):064x}"
                self.add(id_, request.json.get("Labels") or {}, "created")
            return 201, {"Id": id_, "Warnings": None}
        found = re.fullmatch("/containers/([^/]+)(/json|/start|/stop|/wait|/logs|)", path)
        container = self.containers.get(found[1]) if found else None
        if not found or not container:
            return 404, {"message": "page not found"}
        if found[2] == "/json":
            return 200, container
        if found[2] == "/logs":
            return 200, PRINTED
        if found[2] == "/wait":
            while container["State"]["Status"] == "running" and not self.closed:
                time.sleep(0.02)
            if self.hiccups:
                self.hiccups -= 1
                raise ConnectionError
            return 200, {"StatusCode": container["State"]["ExitCode"]}
        time.sleep(self.delay)
        if request.method == "DELETE":
            if container["State"]["Status"] == "running":
                return 409, {"message": "it runs"}
            del self.containers[found[1]]
        else:
            container["State"]["Status"] = {"/start": "running", "/stop": "exited"}[found[2]]
        return 204, None


class Server(socketserver.ThreadingUnixStreamServer):
    """Serves a `FakeEngine`."""

    daemon_threads = True
    request_queue_size = 256
    engine: FakeEngine


class Handler(socketserver.StreamRequestHandler):
    """Reads requests, as leniently as any server could, so that nothing a client smuggles stays unseen."""

    server: Server

    def handle(self) -> None:
        """Answer one request after the other."""
        while line := self.rfile.readline():
            method, _, rest = line.decode("latin-1").strip().partition(" ")
            headers = {}
            while (header := self.rfile.readline().decode("latin-1")).strip():
                name, _, value = header.partition(":")
                headers[name.strip().lower()] = value.strip()
            length = headers.get("content-length", "0")
            body = self.rfile.read(int(length)) if length.isdigit() and len(length) < 10 else b""
            if self.server.engine.closed:
                return
            try:
                status, answer = self.server.engine.answer(Request(method, rest.rpartition(" ")[0], body))
            except ConnectionError:
                return
            except (ValueError, KeyError, AttributeError, RecursionError):
                status, answer = 400, {"message": "bad request"}
            content = (
                answer if isinstance(answer, bytes) else json.dumps(answer).encode() if answer is not None else b""
            )
            kind = "octet-stream" if isinstance(answer, bytes) else "json"
            head = f"HTTP/1.1 {status} X\r\nContent-Type: application/{kind}\r\nContent-Length: {len(content)}\r\n\r\n"
            with contextlib.suppress(BrokenPipeError):  # it waited no longer
                self.wfile.write((head if content else f"HTTP/1.1 {status} X\r\n\r\n").encode() + content)
