"""Inputs that a run config gives to ops: values only, and none from a file.

Dagster reads an input of a built-in type from any file that the run config names, as JSON or as a pickle
(dagster/_core/types/builtin_config_schemas.py, 1.13.27). A pickle is a program, and a text that an op wrote can be one:
so whoever may launch a run could run any code. This module can go when Dagster reads no pickle that a config names.
"""

from collections.abc import Mapping

import dagster as dg
from dagster._core.types import builtin_config_schemas as builtin  # public nowhere


def load_value(config: Mapping[str, object]) -> object:
    """Return the value, which is all that an input's config may have."""
    if config.keys() != {"value"}:
        raise dg.DagsterInvalidInvocationError("No input is read from a file here: give its value instead.")
    return config["value"]


def refuse_files() -> None:
    """Let no run be created whose config names a file for an input."""
    types = builtin.BuiltinSchemas
    for loader in (types.ANY_INPUT, types.BOOL_INPUT, types.FLOAT_INPUT, types.INT_INPUT, types.STRING_INPUT):
        # In place, because the types of lists, dictionaries and optional values refer to it.
        fields = getattr(loader.schema_type, "non_scalar_type", loader.schema_type).fields
        for file in fields.keys() - {"value"}:
            del fields[file]
    # The config of a tuple is checked by nothing before its items are loaded (python_tuple.py).
    builtin.load_type_input_schema_dict = load_value
