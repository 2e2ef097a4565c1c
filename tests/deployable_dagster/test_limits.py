"""The limits of one run, by its tags."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from deployable_dagster import limits
from deployable_dagster.launcher import RunLauncher

MAXIMA = {"RUN_MEMORY_MAX": "4g", "RUN_CPU_PERCENT_MAX": "250", "RUN_PIDS_MAX": "1000"}
DEFINITIONS = """
import dagster as dg

@dg.op
def nothing(): ...

@dg.job(tags={"docker/memory": "8g"})
def greedy(): nothing()
"""
INSTANCE = """
run_coordinator: { module: deployable_dagster.limits, class: RunCoordinator }
run_retries: { enabled: true, max_retries: 1 }
telemetry: { enabled: false }
"""


@pytest.mark.parametrize(
    ("tags", "arguments"),
    [
        ({}, {}),
        ({"docker/image": "x", "memory": "4g", "docker/gpus": "1"}, {}),
        ({"docker/memory": "4g"}, {"mem_limit": 4 << 30}),
        ({"docker/memory": "300m"}, {"mem_limit": 300 << 20}),
        ({"docker/cpus": "1.5"}, {"cpu_quota": 150_000}),
        ({"docker/cpus": "2"}, {"cpu_quota": 200_000}),
        ({"docker/cpus": "0.29"}, {"cpu_quota": 29_000}),
        ({"docker/pids": "1000"}, {"pids_limit": 1000}),
        (
            {"docker/memory": "4096k", "docker/cpus": "2.5", "docker/pids": "1"},
            {"mem_limit": 4 << 20, "cpu_quota": 250_000, "pids_limit": 1},
        ),
    ],
)
def test_tags_become_what_the_gate_is_asked_for(tags: dict[str, str], arguments: dict[str, int]) -> None:
    assert limits.find_problem(tags, MAXIMA) is None
    context = RunLauncher().get_container_context(dg.DagsterRun("nothing", tags=tags))
    assert context.container_kwargs == arguments
    assert not context.networks
    assert not context.env_vars


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        *(
            ("docker/memory", value)
            for value in ("", "0g", "-1g", "4", "4 GB", "4G", "1.5g", "4g ", "4g\n", "\u0664g", "g", "9" * 5000 + "g")
        ),
        *(
            ("docker/cpus", value)
            for value in ("", "0", "0.0", "0.00", "-1", "1.555", ".5", "1.", "1e3", "nan", "inf", "two", "\u0664")
        ),
        *(("docker/pids", value) for value in ("", "0", "-1", "1.0", "1e3", "many", "true", "\u0664", "9" * 5000)),
    ],
)
def test_a_tag_that_is_no_limit_is_named_with_the_fix(tag: str, value: str) -> None:
    problem = limits.find_problem({tag: value}, {})
    assert problem is not None
    assert f"'{value}' is not a valid value for the tag {tag}: use something like " in problem
    assert limits.read({tag: value}) == {}


@pytest.mark.parametrize(
    ("tag", "value", "setting"),
    [
        ("docker/memory", "5g", "RUN_MEMORY_MAX=4g"),
        ("docker/memory", "4097m", "RUN_MEMORY_MAX=4g"),
        ("docker/cpus", "2.51", "RUN_CPU_PERCENT_MAX=250"),
        ("docker/pids", "1001", "RUN_PIDS_MAX=1000"),
    ],
)
def test_too_much_is_told_with_both_figures(tag: str, value: str, setting: str) -> None:
    problem = f"The tag {tag} asks for {value}, which is more than {setting} in .env allows."
    assert limits.find_problem({tag: value}, MAXIMA) == problem
    for unknown in ({}, dict.fromkeys(MAXIMA, "many")):  # then the gate knows
        assert limits.find_problem({tag: value}, unknown) is None


def test_a_refused_run_is_not_queued_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(INSTANCE)
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    variables = {
        "DAGSTER_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(limits.__file__).parents[1]),
        "DAGSTER_CONTAINER_CONTEXT": json.dumps(MAXIMA),
    }
    launch = [sys.executable, "-m", "dagster", "job", "launch", "--python-file", "definitions.py"]
    for tags in ([], ["--tags", '{"docker/memory": "4g"}']):
        subprocess.run([*launch, *tags], cwd=tmp_path, env=os.environ | variables, check=True)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        queued, refused = instance.get_runs()
        last = instance.all_logs(refused.run_id)[-1]
    assert queued.status == dg.DagsterRunStatus.QUEUED
    assert refused.status == dg.DagsterRunStatus.FAILURE
    assert refused.tags["dagster/will_retry"] == "false"
    reason = "The tag docker/memory asks for 8g, which is more than RUN_MEMORY_MAX=4g in .env allows."
    assert last.message == f"The run is refused. {reason}"
