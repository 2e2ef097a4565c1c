"""What a code server loads: your module's definitions, and the nightly clean-up beside them.

CODE_LOCATION_MODULE names your module. It may hold what Dagster itself finds in a module: one `@dg.definitions`
function (`load_from_defs_folder` included) or `Definitions` object, repositories, or just jobs, assets, schedules and
sensors.
"""

import os
from importlib import import_module
from types import ModuleType
from typing import Any

import dagster as dg

from deployable_dagster import inputs, retention, startup

LazyDefinitions: type = type(dg.definitions(lambda: dg.Definitions()))  # noqa: PLW0108 - Dagster looks at its signature


def find(module: ModuleType) -> dict[str, Any]:
    """Return the module's objects that hold definitions, each once, by name; like Dagster, of the first kind found."""
    for kind in (LazyDefinitions, dg.Definitions, dg.RepositoryDefinition):
        if found := {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, kind)}:
            return dict(found.values())
    return {}


def load(module: ModuleType) -> dg.Definitions:
    """Return the module's definitions. DagsterInvariantViolationError if it has none, or several objects with some."""
    found = find(module)
    if len(found) > 1:
        names = ", ".join(found)
        raise dg.DagsterInvariantViolationError(f"{module.__name__} must have one Definitions object, not {names}")
    for definitions in found.values():
        return definitions if isinstance(definitions, dg.Definitions) else definitions()
    loose = dg.load_definitions_from_module(module)
    if not any((loose.assets, loose.asset_checks, loose.jobs, loose.schedules, loose.sensors)):
        raise dg.DagsterInvariantViolationError(f"{module.__name__} has no definitions")
    return loose


inputs.refuse_files()
user_module = import_module(os.environ["CODE_LOCATION_MODULE"])
repositories = {name: each for name, each in find(user_module).items() if isinstance(each, dg.RepositoryDefinition)}

if repositories:
    globals().update(repositories)

    @dg.repository
    def clean_up() -> list[dg.JobDefinition | dg.ScheduleDefinition]:
        """Hold the nightly clean-up, beside your repositories."""
        return [retention.retention_job, retention.every_night]

else:

    @dg.definitions
    def definitions() -> dg.Definitions:
        """Return your definitions and the nightly clean-up."""
        return dg.Definitions.merge(load(user_module), retention.defs)


startup.collect_as_usual()
