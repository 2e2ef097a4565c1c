"""The limits of one run, by the tags of its job or its own: docker/memory, docker/cpus, docker/pids."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import dagster as dg

UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Limit(NamedTuple):
    """A limit: how its tag and its maximum in .env are written and read, and docker-py's name for it."""

    pattern: str
    example: str
    read: Callable[[str], int]
    argument: str
    setting: str
    setting_pattern: str
    read_setting: Callable[[str], int]


def read_memory(text: str) -> int:
    """Return the bytes in something like 4g."""
    return int(text[:-1]) * UNITS[text[-1]]


MEMORY, WHOLE = "[1-9][0-9]{0,11}[bkmg]", "[1-9][0-9]{0,8}"
LIMITS = {
    "docker/memory": Limit(MEMORY, "4g", read_memory, "mem_limit", "RUN_MEMORY_MAX", MEMORY, read_memory),
    "docker/cpus": Limit(
        r"(?=.*[1-9])[0-9]{1,5}(\.[0-9]{1,2})?",
        "1.5",
        lambda cpus: round(float(cpus) * 100) * 1000,  # microseconds in a tenth of a second
        "cpu_quota",
        "RUN_CPU_PERCENT_MAX",
        WHOLE,
        lambda percent: int(percent) * 1000,
    ),
    "docker/pids": Limit(WHOLE, "1000", int, "pids_limit", "RUN_PIDS_MAX", WHOLE, int),
}


def read(tags: Mapping[str, str]) -> dict[str, int]:
    """Return what the tags ask for, as docker-py's arguments."""
    asked = {tag: limit for tag, limit in LIMITS.items() if re.fullmatch(limit.pattern, tags.get(tag, ""), re.ASCII)}
    return {limit.argument: limit.read(tags[tag]) for tag, limit in asked.items()}


def find_problem(tags: Mapping[str, str], maxima: Mapping[str, Any]) -> str | None:
    """Say which tag is no limit, or is more than its setting in `maxima` allows."""
    for tag, limit in LIMITS.items():
        if tag not in tags:
            continue
        value, most = tags[tag], str(maxima.get(limit.setting, ""))
        if not re.fullmatch(limit.pattern, value, re.ASCII):
            return f"'{value}' is not a valid value for the tag {tag}: use something like {limit.example}."
        if re.fullmatch(limit.setting_pattern, most) and limit.read(value) > limit.read_setting(most):
            return f"The tag {tag} asks for {value}, which is more than {limit.setting}={most} in .env allows."
    return None


def refuse(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    """Mark a run as failed before anything of it executes. It is not retried, because it would be refused again."""
    instance.report_run_failed(run, f"The run is refused. {reason}")
    instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})


class RunCoordinator(dg.QueuedRunCoordinator):
    """Queues runs, but refuses at once those whose tags the gate would refuse."""

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        """Queue a run. A refusal raises no exception, which would end the tick or the backfill that asks for the run.

        The maxima are those of the run's code server, which tells them as its container context: docker-compose.yml.
        """
        run = context.dagster_run
        origin = run.job_code_origin
        maxima = (origin and origin.repository_origin.container_context) or {}
        if not (problem := find_problem(run.tags, maxima)):
            return super().submit_run(context)
        refuse(self._instance, run, problem)
        return self._instance.get_run_by_id(run.run_id) or run
