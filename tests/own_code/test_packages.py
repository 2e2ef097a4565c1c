"""What docs/your-own-code.md says of packages from elsewhere, system packages and further files: a build as written."""

import base64
import io
import ssl
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.commands.conftest import Checkout
from tests.own_code.conftest import blocks, commands_of, shell, write_below

LOGIN = "me:secret"
WHEEL = "company_tools-1.0-py3-none-any.whl"
IN_THE_IMAGE = """
import company_tools, other_tools, pathlib, subprocess
subprocess.run(["git", "--version"], check=True)
assert "libgomp.so.1" in subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
print(pathlib.Path("sql/orders.sql").read_text())
"""
PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "other-tools"
version = "1.0"
"""


class Index(SimpleHTTPRequestHandler):
    """Serves a directory to those who log in."""

    def send_head(self) -> io.BytesIO | None:
        """Refuse everybody else."""
        if self.headers.get("Authorization") != f"Basic {base64.b64encode(LOGIN.encode()).decode()}":
            self.send_error(401)
            return None
        return super().send_head()  # type: ignore[return-value]

    def log_message(self, *_: object) -> None:
        """Be silent."""


def certify(directory: Path) -> None:
    """Make a certificate authority, `root.pem`, and a certificate for localhost: pip accepts none for an address."""
    new = "openssl req -newkey rsa:2048 -nodes"
    for command in (
        f"{new} -x509 -days 1 -subj /CN=company -keyout root.key -out root.pem",
        f"{new} -subj /CN=localhost -keyout index.key -out index.csr",
        "echo subjectAltName=DNS:localhost >san",
        "openssl x509 -req -in index.csr -CA root.pem -CAkey root.key -set_serial 1 -extfile san -out index.pem",
    ):
        shell(command, directory)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """Yield host and port of an index with a password, and of archives, behind a certificate of its company's own."""
    certify(tmp_path)
    packages, archives = tmp_path / "served/simple/company-tools", tmp_path / "served/other-tools/archive"
    packages.mkdir(parents=True)
    archives.mkdir(parents=True)
    about = "company_tools-1.0.dist-info"
    with zipfile.ZipFile(packages / WHEEL, "w") as wheel:
        wheel.writestr("company_tools.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: company-tools\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(
            f"{about}/RECORD", f"company_tools.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n"
        )
    with tarfile.open(archives / "0123abc.tar.gz", "w:gz") as archive:
        for name, text in {"pyproject.toml": PYPROJECT, "other_tools.py": ""}.items():
            member = tarfile.TarInfo(f"other-tools-0123abc/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(tmp_path / "served")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "index.pem", tmp_path / "index.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"localhost:{server.server_port}"
    server.shutdown()


@pytest.fixture
def checkout(docker_engine: None, tmp_path: Path) -> Iterator[Checkout]:
    """Yield a checkout that has the packages of `make` installed; remove its images."""
    (tmp_path / "checkout").mkdir()
    checkout = Checkout(tmp_path / "checkout")
    (checkout.directory / ".venv").symlink_to(sys.prefix)
    yield checkout
    checkout.remove()


@pytest.mark.long
def test_the_image_has_what_was_added(checkout: Checkout, index: str, tmp_path: Path) -> None:
    own, home = checkout.directory, tmp_path / "home"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text(f"[global]\nextra-index-url = https://{LOGIN}@{index}/simple\n")
    (home / ".netrc").write_text("machine localhost login me password secret\n")
    trusted = ssl.get_default_verify_paths().cafile
    (own / "ca.crt").write_text((Path(trusted).read_text() if trusted else "") + (tmp_path / "root.pem").read_text())

    dockerfile, project = own / "Dockerfile.user_code", own / "pyproject.toml"
    (system,) = blocks("### System packages")
    checkout.edit("Dockerfile.user_code", "RUN useradd", f"{system}RUN useradd")
    allowed, copied = blocks("### Files outside pipeline/")
    (own / ".dockerignore").write_text((own / ".dockerignore").read_text() + allowed)
    write_below(dockerfile, "COPY --from=build --chown=1000:1000 /build/pipeline", copied)
    (own / "sql").mkdir()
    (own / "sql/orders.sql").write_text("SELECT 1")
    (archive,) = blocks("### A git repository")
    heading = "### A private index, and a certificate authority of your company"
    named, install, build, secrets = blocks(heading)
    write_below(project, "user_code = [", archive.replace("git.example", index) + '    "company-tools",\n')
    project.write_text(project.read_text() + named.replace("pypi.example", index))
    before = dockerfile.read_text()
    start = before.index("RUN --mount=type=cache")
    end = before.index("user_code.txt\n", start) + len("user_code.txt\n")
    dockerfile.write_text(before[:start] + install + before[end:])
    line = "    build: { context: ., dockerfile: Dockerfile.user_code }\n"
    on_this_machine = build.replace(" }", ", network: host }")  # where the index is
    checkout.edit("docker-compose.yml", line, on_this_machine)
    compose = own / "docker-compose.yml"
    compose.write_text(compose.read_text() + secrets)

    environment = checkout.environment | {"HOME": str(home)}
    (lock,) = commands_of(heading)
    # `make` would install what is locked into .venv; that it does so has a test of its own.
    printed = shell(f"{lock} -o .venv/installed", own, **environment)
    assert {"> company-tools==1.0"} <= set(printed.splitlines())
    shell("docker compose build user_code", own, **environment)
    image = f"{checkout.project}-user_code"
    assert (
        "SELECT 1"
        in bytes(
            checkout.engine.containers.run(image, ["python", "-c", IN_THE_IMAGE], network_mode="none", remove=True)
        ).decode()
    )
    history = subprocess.run(["docker", "history", "--no-trunc", image], capture_output=True, text=True, check=True)
    assert "secret@" not in history.stdout
