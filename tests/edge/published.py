"""A copy of this project that is published, with logins."""

import base64
import os
import ssl
import subprocess
from http.client import HTTPSConnection

from tests.stack import ROOT, Deployment, free_port

ALICE = ("alice", "correct horse battery")
BOB = ("bob", 'a "quoted" $HOME #{secret}')


class Published(Deployment):
    """The stack with the profiles `edge` and `viewer`; alice may do everything, bob may look."""

    def __init__(self) -> None:
        """Choose the edge's ports too."""
        super().__init__()
        self.https, self.http = free_port(), free_port()
        self.address = f"https://localhost:{self.https}"
        self.environment |= {
            "COMPOSE_ENV_FILES": os.devnull,
            "COMPOSE_PROFILES": "edge,viewer",
            "PUBLISH_ADDRESS": "127.0.0.1",
            "HTTPS_PORT": str(self.https),
            "HTTP_PORT": str(self.http),
        }
        self.tls = ssl.create_default_context()

    def up(self) -> None:
        """Name alice and bob, start, trust the edge's authority."""
        for (name, password), role in ((ALICE, ""), (BOB, "viewer")):
            done = self.make_user(name, password, role)
            assert done.returncode == 0, done.stderr
        super().up()
        authority = self.run_in("edge", "cat", "/data/caddy/pki/authorities/local/root.crt")
        self.tls.load_verify_locations(cadata=authority.decode())

    def make_user(self, name: str, password: str = "", role: str = "") -> subprocess.CompletedProcess[str]:
        """Run `make user` with the password on its standard input."""
        environment = os.environ | self.environment | {"NAME": name, "ROLE": role}
        command = ["make", "--no-print-directory", "user"]
        return subprocess.run(
            command, cwd=ROOT, env=environment, input=password, capture_output=True, text=True, check=False
        )

    def request(
        self, path: str, login: tuple[str, str] | None = None, *, method: str = "GET", body: str = "", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Return the status, headers (names in lower case) and body of the edge's answer to exactly this path."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if login:
            sent["Authorization"] = f"Basic {base64.b64encode(':'.join(login).encode()).decode()}"
        connection = HTTPSConnection("localhost", self.https, context=self.tls, timeout=120)
        connection.request(method, path, body or None, sent)
        answer = connection.getresponse()
        content = answer.read() if answer.status != 101 else b""
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    def execute(self, query: str, login: tuple[str, str]) -> str:
        """Return the answer to a GraphQL query, as text."""
        body = f'{{"query": "{query}"}}'
        return self.request("/graphql", login, method="POST", body=body, Content_Type="application/json")[2].decode()
