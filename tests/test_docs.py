"""README.md and .env.example name what exists, and all of it."""

import re
from pathlib import Path

import pytest

README = Path("README.md").read_text()
COMPOSE = Path("docker-compose.yml").read_text()
ENV_EXAMPLE = Path(".env.example").read_text()


def found(pattern: str, text: str) -> set[str]:
    """Return every distinct match of `pattern`."""
    return set(re.findall(pattern, text, flags=re.MULTILINE))


def test_the_readme_names_every_make_target_and_no_other() -> None:
    assert found(r"`make ([\w-]+)", README) == found(r"^([\w-]+):", Path("Makefile").read_text()) - {"help"}


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
    else:
        assert found(rf"\$\{{{name}:-(.*?)\}}", COMPOSE) == {default}


def test_the_readme_names_the_port_that_is_published() -> None:
    (port,) = found(r"localhost:(\d+)", README)
    assert f"127.0.0.1:${{DAGIT_PORT:-{port}}}:" in COMPOSE


@pytest.mark.parametrize("page", [Path("README.md"), Path("CONTRIBUTING.md"), *Path("docs").glob("*.md")], ids=str)
def test_links_lead_to_files(page: Path) -> None:
    links = found(r"\]\((?!https?://)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_map_shows_every_directory_at_the_top_level() -> None:
    tracked = {path.parent.name for path in Path().glob("[a-z]*/*") if path.is_file()} - {
        "data",
        "local",
        "docs",
        "audit",
    }
    assert found(r"^\| \[(\w+)/\]", README) == tracked
