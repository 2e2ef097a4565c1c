"""What a code server loads: your module's definitions, and the nightly clean-up beside them.

CODE_LOCATION_MODULE names your module. It may hold what Dagster itself finds in a module: one `Definitions` object or
`@dg.definitions` function (`load_from_defs_folder` included), repositories, or just jobs, assets, schedules, sensors.
"""

import os
from importlib import import_module
from types import ModuleType
from typing import TypeVar

import dagster as dg

from deployable_dagster import retention

T = TypeVar("T")

LazyDefinitions: type = type(dg.definitions(lambda: dg.Definitions()))  # noqa: PLW0108 - Dagster looks at its signature


def find(module: ModuleType, kind: type[T]) -> dict[str, T]:
    """Return the module's objects of this kind by name, each once."""
    found = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, kind)}
    return dict(found.values())


def load(module: ModuleType) -> dg.Definitions:
    """Return the module's definitions. DagsterInvariantViolationError if it has several objects that hold them."""
    found = find(module, LazyDefinitions) or find(module, dg.Definitions)
    if len(found) > 1:
        names = ", ".join(found)
        raise dg.DagsterInvariantViolationError(f"{module.__name__} must have one Definitions object, not {names}")
    if not found:
        return dg.load_definitions_from_module(module)
    (definitions,) = found.values()
    return definitions if isinstance(definitions, dg.Definitions) else definitions()


user_module = import_module(os.environ["CODE_LOCATION_MODULE"])

if repositories := find(user_module, dg.RepositoryDefinition):
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
