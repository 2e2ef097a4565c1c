"""The documentation names what exists, all of it, and every command in it works as written."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.stack import Deployment

README = Path("README.md").read_text()
COMPOSE = Path("docker-compose.yml").read_text()
ENV_EXAMPLE = Path(".env.example").read_text()
MAKEFILE = Path("Makefile").read_text()
HOW_IT_WORKS = Path("docs/how-it-works.md").read_text()
PAGES = [*sorted(Path().glob("*.md")), *sorted(Path("docs").glob("*.md"))]


def found(pattern: str, text: str) -> set[str]:
    """Return every distinct match of `pattern`."""
    return set(re.findall(pattern, text, flags=re.MULTILINE))


def commands(text: str) -> list[str]:
    """Return the command lines of every console block: of what is shown with its output, those behind a `$`."""
    lines: list[str] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        shown = block.replace("\\\n", "").splitlines()
        lines += [line[2:] for line in shown if line.startswith("$ ")] or shown
    return [re.sub(r"\s+#.*", "", line) for line in lines]


def section(heading: str, text: str) -> str:
    """Return what stands below a heading, up to the next one of its level or above."""
    below = text[text.index(f"\n{heading}\n") + len(heading) + 2 :]
    return re.split(rf"^#{{1,{heading.index(' ')}}} ", below, flags=re.MULTILINE)[0]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = found(r"^#+ (.*)", page.read_text())
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_names_every_make_target_and_no_other() -> None:
    assert found(r"`make ([\w-]+)", section("## Commands", README)) == found(r"^([\w-]+):", MAKEFILE) - {"help"}


def test_every_variable_is_in_the_readme_the_example_and_the_compose_file() -> None:
    variables = found(r"\$\{([A-Z_]+)", COMPOSE) | {"COMPOSE_PROFILES"}
    assert found(r"`([A-Z]+_[A-Z_]+)`", README) == variables
    assert found(r"^# ([A-Z_]+)=", ENV_EXAMPLE) == variables


@pytest.mark.parametrize(("name", "default"), re.findall(r"^# ([A-Z_]+)=(.*)$", ENV_EXAMPLE, flags=re.MULTILINE))
def test_the_defaults_in_the_example_are_those_of_the_compose_file(name: str, default: str) -> None:
    if name == "COMPOSE_PROJECT_NAME":
        assert f"\nname: {default}\n" in COMPOSE
    elif name == "COMPOSE_PROFILES":
        assert default == ""
    elif limit := re.fullmatch("(.*)_MAX", name):
        assert (default, COMPOSE.count(f"${{{name}:-${{{limit[1]}:-")) == ("", 2)
    else:
        assert found(rf"\$\{{{name}:-(.*?)\}}", COMPOSE) == {default}


def test_the_readme_names_the_port_that_is_published() -> None:
    (port,) = found(r"localhost:(\d+)", README)
    assert f"127.0.0.1:${{DAGIT_PORT:-{port}}}:" in COMPOSE


def test_the_figures_in_the_readme_are_those_that_were_measured() -> None:
    measured = found(r"(?<![\d.])\d+(?:\.\d+)?", Path("docs/performance.md").read_text())
    claimed = found(r"(\d+(?:\.\d+)?) (?:s|MiB|MB)\b", section("## Why not Dagster's own example", README))
    assert len(claimed) == 8
    assert claimed <= measured


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in found(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_map_shows_every_directory() -> None:
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    directories = {name for name in found(r"^(\w+)/", tracked) if Path(name).is_dir()}
    directories |= {name for name in found(r"^(deploy/\w+)/", tracked) if Path(name).is_dir()}
    shown = section("## Which file do I open?", HOW_IT_WORKS).split("| Where | What |")[1]
    assert {link.strip("/") for link in found(r"\(\.\./([\w/]+)\)", shown)} >= directories - {"deploy"}


def test_the_picture_shows_every_service_network_and_volume() -> None:
    picture = section("## How it fits together", README)
    named = set(re.findall(r"[\w-]+", picture))
    for kind in ("services", "networks", "volumes"):
        block = COMPOSE.split(f"\n{kind}:\n")[1]
        names = set(re.findall(r"^  ([\w-]+):", re.split(r"^\w", block, flags=re.MULTILINE)[0], flags=re.MULTILINE))
        assert names <= named, kind


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_shown_is_one_that_exists(page: Path) -> None:
    targets = found(r"^([\w-]+):", MAKEFILE)
    for command in commands(page.read_text()):
        program, first, *_ = re.sub(r"^(\w+=\S+ )+", "", command).split()
        assert program in ("make", "docker", "git") or Path(program).exists(), command
        assert program != "make" or first in targets, command


def test_the_commands_without_docker_run_the_job(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    for name in filter(os.path.exists, listed.splitlines()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(Path(".venv").resolve())
    os.utime(tmp_path / "requirements/dev.txt", (0, 0))  # that the packages get installed has a test of its own
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "DAGSTER"))}
    local = [line for line in commands(section("## Run the job", README)) if not line.startswith("docker")]
    assert len(local) == 3
    for number, command in enumerate(local, start=1):
        subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True)
        assert len(list(tmp_path.glob("data/*/sent_clean.txt"))) == number, command


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_commands_inside_a_container_work(page: Path, deployment: Deployment) -> None:
    environment = {**os.environ, **deployment.environment, "COMPOSE_FILE": str(Path("docker-compose.yml").resolve())}
    for command in commands(page.read_text()):
        if command.startswith("docker compose exec "):
            done = subprocess.run(
                command,
                shell=True,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
