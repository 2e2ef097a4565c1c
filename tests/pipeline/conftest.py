"""An instance on SQLite and a data directory, new for each test."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that the texts of this test go to."""
    monkeypatch.setenv("DATA_PATH", str(tmp_path / "data"))
    monkeypatch.delenv("CONNECTION_CREDENTIALS", raising=False)
    return tmp_path / "data"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Yield an instance that keeps its records in SQLite files."""
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        yield instance
