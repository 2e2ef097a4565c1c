""".ci/release-notes: the section of a version, or a failure."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

VERSION = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
CHANGELOG = """# Changelog

## [Unreleased]

## [2.0.0] - 2026-02-03

- Two.

## [1.0.0] - 2026-01-02

- One.
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the script, beside a changelog of two versions and a pyproject.toml of the newer one."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(".ci/release-notes", tmp_path / ".ci")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "2.0.0"\n')
    return tmp_path


def notes(checkout: Path, tag: str) -> subprocess.CompletedProcess[str]:
    """Run it for a tag."""
    return subprocess.run([checkout / ".ci" / "release-notes", tag], capture_output=True, text=True, check=False)


def test_it_prints_the_section_of_the_version_alone(checkout: Path) -> None:
    assert notes(checkout, "v2.0.0").stdout.strip() == "- Two."


@pytest.mark.parametrize(("tag", "reason"), [("v1.0.0", "pyproject.toml has"), ("v2.0", "pyproject.toml has")])
def test_the_tag_must_be_the_version_of_pyproject(checkout: Path, tag: str, reason: str) -> None:
    refused = notes(checkout, tag)
    assert (refused.returncode, reason in refused.stderr) == (1, True)


@pytest.mark.parametrize("heading", ["## [2.0.0]", "## [2.0.0-rc1] - 2026-02-03", "## [12.0.0] - 2026-02-03"])
def test_the_changelog_must_have_a_dated_section(checkout: Path, heading: str) -> None:
    changelog = checkout / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("## [2.0.0] - 2026-02-03", heading))
    refused = notes(checkout, "v2.0.0")
    assert (refused.returncode, "no dated section [2.0.0]" in refused.stderr) == (1, True)


def test_the_current_version_can_be_released() -> None:
    assert "### Added" in notes(Path(), f"v{VERSION}").stdout
