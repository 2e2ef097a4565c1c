"""What a code server loads: whatever kind of module the user has, with the nightly clean-up beside it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

from tests.stack import ROOT

# Of Dagster, for the function that finds loose jobs and assets in a module.
pytestmark = pytest.mark.filterwarnings("ignore:Function `load_definitions_from_module")

MODULE = "deployable_dagster.code_location"
JOB = """
import dagster as dg
@dg.op
def say():
    print("said by your job")
@dg.job
def yours():
    say()
"""
SCHEDULE = """
@dg.schedule(job=yours, cron_schedule="* * * * *")
def often():
    return dg.RunRequest()
@dg.asset
def table():
    return None
"""
REPOSITORY = """
@dg.repository
def {}():
    return [yours]
"""
DEFS_FOLDER = """
from pathlib import Path
import dagster as dg
@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
DG_PROJECT = """
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "folder"
code_location_target_module = "folder.definitions"
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Yield what loads the code location of a user's module with this source."""
    before = set(sys.modules)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CODE_LOCATION_MODULE", "users_own")

    def load(source: str) -> ModuleType:
        (tmp_path / "users_own.py").write_text(source)
        return import_module(MODULE)

    yield load
    for name in {MODULE, *(set(sys.modules) - before)}:
        if name.partition(".")[0] in ("users_own", "folder") or name == MODULE:
            sys.modules.pop(name, None)


def jobs(location: ModuleType) -> set[str]:
    """Return the names of a location's jobs."""
    return {job.name for job in location.definitions().resolve_all_job_defs() if not job.name.startswith("__")}


def has_clean_up(repository: dg.RepositoryDefinition) -> bool:
    """Tell whether the nightly clean-up is there, and switched on."""
    schedule = repository.get_schedule_def("every_night")
    return (schedule.job_name, schedule.default_status) == ("retention_job", dg.DefaultScheduleStatus.RUNNING)


@pytest.mark.parametrize(
    "source",
    [
        JOB + "defs = dg.Definitions(jobs=[yours])",
        JOB + "any_name = another_name = dg.Definitions(jobs=[yours])",
        JOB + "defs = dg.Definitions(jobs=[yours], executor=dg.multiprocess_executor)",
        JOB + "@dg.definitions\ndef defs():\n    return dg.Definitions(jobs=[yours])",
        JOB + REPOSITORY.format("old") + "defs = dg.Definitions(jobs=[yours])",
        JOB,
        JOB + SCHEDULE,
    ],
    ids=[
        "a Definitions object",
        "one with two names",
        "one with an executor for all jobs",
        "a function that returns one",
        "one beside a repository",
        "a loose job",
        "loose jobs, schedules and assets",
    ],
)
def test_a_module_is_loaded_with_the_clean_up(source: str, load: Callable[[str], ModuleType]) -> None:
    location = load(source)
    assert jobs(location) == {"yours", "retention_job"}
    assert has_clean_up(location.definitions().get_repository_def())
    assert not [name for name, value in vars(location).items() if isinstance(value, dg.RepositoryDefinition)]


def test_loose_schedules_and_assets_are_loaded_too(load: Callable[[str], ModuleType]) -> None:
    definitions = load(JOB + SCHEDULE).definitions()
    assert definitions.resolve_schedule_def("often").job_name == "yours"
    assert definitions.resolve_assets_def("table") is not None


def test_a_defs_folder_is_loaded_with_the_clean_up(
    tmp_path: Path, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(DG_PROJECT)
    (tmp_path / "folder/defs").mkdir(parents=True)
    for file, source in {"__init__": "", "definitions": DEFS_FOLDER, "defs/__init__": "", "defs/jobs": JOB}.items():
        (tmp_path / f"folder/{file}.py").write_text(source)
    monkeypatch.setenv("CODE_LOCATION_MODULE", "folder.definitions")
    location = load("")
    assert jobs(location) == {"yours", "retention_job"}
    assert has_clean_up(location.definitions().get_repository_def())


def test_repositories_are_loaded_beside_one_with_the_clean_up(load: Callable[[str], ModuleType]) -> None:
    location = load(JOB + REPOSITORY.format("one") + REPOSITORY.format("two"))
    found = {name: each for name, each in vars(location).items() if isinstance(each, dg.RepositoryDefinition)}
    assert found.keys() == {"one", "two", "clean_up"}
    assert has_clean_up(found["clean_up"])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("a = dg.Definitions(jobs=[yours])\nb = dg.Definitions()", "must have one Definitions object, not a, b"),
        (
            "a, b = (dg.definitions(lambda: dg.Definitions()) for _ in '12')",
            "must have one Definitions object, not a, b",
        ),
        ("del yours", "users_own has no definitions"),
    ],
    ids=["two Definitions objects", "two functions that return them", "nothing"],
)
def test_what_could_mean_anything_is_refused(source: str, reason: str, load: Callable[[str], ModuleType]) -> None:
    location = load(JOB + source)
    with pytest.raises(dg.DagsterInvariantViolationError, match=reason):
        location.definitions()


@pytest.mark.parametrize(("job", "printed"), [("yours", "said by your job"), ("retention_job", "Deleted 0 runs")])
def test_a_job_of_the_location_can_be_executed(job: str, printed: str, tmp_path: Path) -> None:
    (tmp_path / "users_own.py").write_text(
        JOB + "defs = dg.Definitions(jobs=[yours], executor=dg.multiprocess_executor)"
    )
    (tmp_path / "dagster.yaml").write_text("telemetry: { enabled: false }")
    environment = os.environ | {
        "DAGSTER_HOME": str(tmp_path),
        "DATA_PATH": str(tmp_path),
        "CODE_LOCATION_MODULE": "users_own",
        "PYTHONPATH": f"{ROOT / 'deploy'}:{tmp_path}",
    }
    command = [sys.executable, "-m", "dagster", "job", "execute", "--module-name", MODULE, "--job", job]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout + done.stderr
