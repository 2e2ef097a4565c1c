"""pipeline/jobs.py: the job as a whole, on each way to run it that needs no Docker."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipeline import clean_string_job


def job_from_repository() -> dg.JobDefinition:
    """Return the job; a process of its own can import this function."""
    return clean_string_job


def test_it_runs_untouched_in_this_process(data: Path) -> None:
    result = clean_string_job.execute_in_process()
    assert result.output_for_node("clean_string", "sent_clean") == "A   OR      ALPHA"
    assert {str(path.relative_to(data)): path.read_text() for path in data.rglob("*.*")} == {
        f"{result.run_id}/sent.txt": "A#$.or?>)(*@alpha",
        f"{result.run_id}/sent_clean.txt": "A   OR      ALPHA",
    }
    assert [event.asset_key for event in result.get_asset_materialization_events()] == [
        dg.AssetKey("sent"),
        dg.AssetKey("sent_clean"),
    ]


@pytest.mark.parametrize(("executor", "processes"), [(None, 1), ("in_process", 1), ("multiprocess", 3)])
def test_the_ops_share_a_process_unless_the_config_says_multiprocess(
    executor: str | None, processes: int, instance: dg.DagsterInstance
) -> None:
    config: dict[str, Any] = {"execution": {"config": {executor: {}}}} if executor else {}
    with dg.execute_job(dg.reconstructable(job_from_repository), instance, run_config=config) as result:
        assert result.success
        starts = [event for event in result.all_events if event.event_type_value == "STEP_START"]
    assert len(starts) == 3
    assert len({event.pid for event in starts}) == processes


def test_a_failed_run_is_executed_again_from_its_failure(data: Path, instance: dg.DagsterInstance) -> None:
    config = {"ops": {"normalize_string": {"config": {"norm": "lower", "force_error": True}}}}
    job = dg.reconstructable(job_from_repository)
    with dg.execute_job(job, instance, run_config=config) as failed:
        assert not failed.success
    options = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    mended = {"ops": {"normalize_string": {"config": {"norm": "lower"}}}}
    with dg.execute_job(job, instance, run_config=mended, reexecution_options=options) as again:
        assert again.success
    assert not (data / again.run_id / "sent.txt").exists()
    assert (data / again.run_id / "sent_clean.txt").read_text() == "a   or      alpha"


def test_the_command_line_runs_it(tmp_path: Path, data: Path) -> None:
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "pipeline", "-j", "clean_string_job"]
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (text,) = data.glob("*/sent_clean.txt")
    assert text.read_text() == "A   OR      ALPHA"


LAUNCH = (
    "mutation($launch: ExecutionParams!) { launchRun(executionParams: $launch) { ... on PythonError { message } } }"
)


def test_a_launch_with_another_norm_is_refused_and_leaves_no_run(tmp_path: Path) -> None:
    job = {"repositoryLocationName": "pipeline", "repositoryName": "__repository__", "jobName": "clean_string_job"}
    config = {"ops": {"normalize_string": {"config": {"norm": "title"}}}}
    launch = json.dumps({"launch": {"selector": job, "runConfigData": config}})
    command = [str(Path(sys.executable).with_name("dagster-graphql")), "-m", "pipeline", "-t", LAUNCH, "-v", launch]
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    answer = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "norm not in enum type Literal['upper', 'lower'] got title" in answer
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_runs_count() == 0
