"""Inputs that a run config gives: a value is taken, a file is refused before the op is executed."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from deployable_dagster import inputs

from tests.stack import ROOT

inputs.refuse_files()

OF_TYPE: dict[Any, tuple[Callable[[object], object], object]] = {
    dg.Any: (lambda item: item, 1),
    Any: (lambda item: item, 1),
    bool: (lambda item: item, True),
    float: (lambda item: item, 0.5),
    int: (lambda item: item, 1),
    str: (lambda item: item, "a"),
    dg.String: (lambda item: item, "a"),
    dg.Optional[int]: (lambda item: item, 1),
    list: (lambda item: [item], 1),
    list[str]: (lambda item: ["a", item], "b"),
    dg.List[dg.Optional[float]]: (lambda item: [item], 0.5),
    dg.Optional[dg.List[int]]: (lambda item: [item], 1),
    dict[str, int]: (lambda item: {"key": item}, 1),
    dg.Dict[str, dg.List[str]]: (lambda item: {"key": [item]}, "a"),
    set[str]: (lambda item: [item], "a"),
    tuple[str, int]: (lambda item: ["a", item], 1),
    dg.Tuple[dg.List[str], int]: (lambda item: [[item], 1], "a"),
}


class Program:
    """Pickled, a program that makes a file."""

    def __init__(self, makes: Path) -> None:
        """Name the file."""
        self.makes = makes

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        """Say what is executed instead of loading this."""
        return Path.touch, (self.makes,)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return, for each kind of file that Dagster would read, the config that names one."""
    (tmp_path / "pickle").write_bytes(pickle.dumps(Program(tmp_path / "made")))
    (tmp_path / "json").write_text('{"value": 1}')
    return {kind: {kind: {"path": str(tmp_path / kind)}} for kind in ("pickle", "json")}


def execute(kind: Any, config: object) -> list[object]:
    """Return the values with which an op was executed, whose input of this type has this config."""
    seen: list[object] = []

    @dg.op(ins={"given": dg.In(kind)})
    def take(given: object) -> None:
        seen.append(given)

    job = dg.GraphDefinition(name="takes", node_defs=[take]).to_job()
    job.execute_in_process({"ops": {"take": {"inputs": {"given": config}}}})
    return seen


@pytest.mark.parametrize("kind", OF_TYPE, ids=str)
def test_a_value_is_taken(kind: Any) -> None:
    around, value = OF_TYPE[kind]
    (plain,) = execute(kind, around({"value": value} if kind in (Any, dg.Any, list) else value))
    assert execute(kind, around({"value": value})) == [plain]


@pytest.mark.parametrize("file", ["pickle", "json"])
@pytest.mark.parametrize("kind", OF_TYPE, ids=str)
def test_a_file_is_refused(kind: Any, file: str, files: dict[str, Any], tmp_path: Path) -> None:
    around, _ = OF_TYPE[kind]
    with pytest.raises(dg.DagsterError, match=f'unexpected config entry "{file}".* Expected: .*value|give its value'):
        execute(kind, around(files[file]))
    assert not (tmp_path / "made").exists()


def test_a_dictionary_is_its_value(files: dict[str, Any], tmp_path: Path) -> None:
    assert execute(dict, files["pickle"]) == [files["pickle"]]
    assert not (tmp_path / "made").exists()


MODULE = """
import dagster as dg
@dg.op
def take(given: str):
    print(given)
@dg.job
def takes():
    take()
"""


def test_a_code_location_refuses_a_file(files: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "users_own.py").write_text(MODULE)
    (tmp_path / "dagster.yaml").write_text("telemetry: { enabled: false }")
    (tmp_path / "config.json").write_text(json.dumps({"ops": {"take": {"inputs": {"given": files["pickle"]}}}}))
    environment = os.environ | {
        "DAGSTER_HOME": str(tmp_path),
        "CODE_LOCATION_MODULE": "users_own",
        "PYTHONPATH": f"{ROOT / 'deploy'}:{tmp_path}",
    }
    job = ["--module-name", "deployable_dagster.code_location", "--job", "takes", "--config", "config.json"]
    command = [sys.executable, "-m", "dagster", "job", "execute", *job]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert 'unexpected config entry "pickle"' in done.stderr
    assert not (tmp_path / "made").exists()
