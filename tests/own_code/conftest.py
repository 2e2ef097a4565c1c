"""docs/your-own-code.md, and how to follow it in a copy of the checkout."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.test_docs import commands, section

PROJECT = Path(__file__).parent / "project/pipeline"
PAGE = Path("docs/your-own-code.md").read_text()
DAYS = [f"2026-01-{day:02}" for day in range(1, 31)]


def commands_of(heading: str) -> list[str]:
    """Return the commands of a section."""
    return commands(section(heading, PAGE))


def blocks(heading: str) -> list[str]:
    """Return the other blocks of a section: what to write where."""
    return re.findall(r"^```(?!console)\w+\n(.*?)^```", section(heading, PAGE), flags=re.MULTILINE | re.DOTALL)


def shell(command: str, directory: Path, **variables: str) -> str:
    """Return what a command prints, run as from a new shell. AssertionError with all of it if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "DAGSTER"))}
    done = subprocess.run(
        command,
        shell=True,
        cwd=directory,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def write_below(path: Path, line: str, text: str) -> None:
    """Write a text below the last line of a file that begins like `line`."""
    lines = path.read_text().splitlines(keepends=True)
    last = max(number for number, each in enumerate(lines) if each.startswith(line))
    path.write_text("".join([*lines[: last + 1], text, *lines[last + 1 :]]))


def put_project(directory: Path) -> None:
    """Follow the sections 1 and 2 but for `make lock`, and write the first day's orders as section 3 shows them."""
    (command,) = commands_of("## 1. Replace the example")
    shell(command, directory)
    shutil.copytree(PROJECT, directory / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (packages,) = blocks("## 2. Add packages")
    write_below(directory / "pyproject.toml", "user_code = [", packages)
    (directory / "data/inbox").mkdir(parents=True)
    (orders,) = blocks("## 3. Try it without Docker")
    (directory / f"data/inbox/{DAYS[0]}.csv").write_text(orders)
