""".ci/pin: base images by digest, against a registry that is a script."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DIGEST = "sha256:" + 64 * "a"
FILES = [Path("docker-compose.yml"), *Path().glob("Dockerfile.*"), *Path().glob("deploy/*/Dockerfile*")]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what is pinned."""
    for file in (*FILES, Path(".ci/pin")):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / file)
    return tmp_path


def pin(checkout: Path, *arguments: str, answer: str = f"echo {DIGEST}") -> int:
    """Run it with a `docker` that does only `answer`; return the exit code."""
    docker = checkout / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(f"#!/bin/sh\n{answer}\n")
    docker.chmod(0o755)
    path = {**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}"}
    return subprocess.run([checkout / ".ci" / "pin", *arguments], env=path, check=False).returncode


def texts(directory: Path) -> dict[Path, str]:
    """Return what each file says."""
    return {file: (directory / file).read_text() for file in FILES}


def test_every_base_image_gets_its_digest_and_loses_it_again(checkout: Path) -> None:
    before = texts(checkout)
    assert pin(checkout, "--remove") == 0
    tags = texts(checkout)
    assert pin(checkout) == 0
    pinned = texts(checkout)
    for file in FILES:
        lines = [line for line in pinned[file].splitlines() if line.startswith("FROM ")]
        assert all(f"@{DIGEST}" in line for line in lines), file
    assert pinned != before
    assert pin(checkout, answer=f"echo sha256:{64 * 'b'}") == 0
    assert texts(checkout) == {file: text.replace(DIGEST, "sha256:" + 64 * "b") for file, text in pinned.items()}
    assert pin(checkout, "--remove") == 0
    assert texts(checkout) == tags
    assert sorted(path.name for path in checkout.rglob("*.unpinned")) == []


@pytest.mark.parametrize("answer", ["exit 1", "echo 'no such manifest'", f'[ "$6" != caddy:2 ] && echo {DIGEST}'])
def test_nothing_changes_where_the_registry_does_not_answer(checkout: Path, answer: str) -> None:
    before = texts(checkout)
    assert pin(checkout, answer=answer) == 1
    assert texts(checkout) == before
