"""Checks the description of a run container that stands in docker-compose.yml. What is not listed is not allowed."""

import re
from collections.abc import Callable

from gate import strict_json
from gate.strict_json import Json

Check = Callable[[Json], bool]

SIZE, PATH, NAME = "[1-9][0-9]*[bkmg]", r"(/[\w.-]+)+", r"[A-Za-z0-9][\w.-]*"
TEXT = r"[^\x00-\x07\x0b\x0e-\x1f]*"


def text(pattern: str) -> Check:
    """Check for a string of this form."""
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


def list_of(pattern: str) -> Check:
    """Check for a list of strings of this form."""
    return lambda value: isinstance(value, list) and all(map(text(pattern), value))


def mapping(keys: str, values: str) -> Check:
    """Check for an object with keys and values of these forms."""
    return lambda value: (
        isinstance(value, dict) and all(map(text(keys), value)) and all(map(text(values), value.values()))
    )


def exactly(expected: Json) -> Check:
    """Check for this value."""
    return lambda value: strict_json.equal(value, expected)


def is_count(value: Json) -> bool:
    """Tell whether it is a positive integer."""
    return type(value) is int and value > 0


def is_network(value: Json) -> bool:
    """Tell whether it is one network that isolates."""
    return len(value) == 1 and list_of(f"(?!(host|bridge|default)$){NAME}")(value) if isinstance(value, list) else False


def is_log_config(value: Json) -> bool:
    """Tell whether the log stays on this machine, and within a size."""
    match value:
        case {"type": "json-file" | "local", "config": {"max-size": size, **more}, **rest} if not rest:
            file = more.pop("max-file", "1")
            return not more and text("[0-9]+[kmg]")(size) and text("[0-9]+")(file)
    return False


RULES: dict[str, tuple[Check, str]] = {  # for each argument, what it must be, and an example
    "env_vars": (list_of(rf"[A-Za-z_]\w*(={TEXT})?"), '["DATA_PATH", "MODE=fast"]'),
    "networks": (is_network, "one network of the deployment"),
    "user": (text("[1-9][0-9]*(:[1-9][0-9]*)?"), '"1000", the number of a user other than root'),
    "cap_drop": (exactly(["ALL"]), '["ALL"]'),
    "security_opt": (exactly(["no-new-privileges:true"]), '["no-new-privileges:true"]'),
    "read_only": (exactly(expected=True), "true"),
    "mem_limit": (text(SIZE), '"2g"'),
    "cpu_quota": (is_count, "200000, microseconds in a tenth of a second: two CPUs"),
    "pids_limit": (is_count, "512"),
    "log_config": (is_log_config, '{"type": "json-file", "config": {"max-size": "10m"}}'),
    "init": (lambda value: isinstance(value, bool), "true"),
    "stop_timeout": (is_count, "30"),
    "shm_size": (text(SIZE), '"64m"'),
    "tmpfs": (mapping(PATH, r"[\w=,]*"), '{"/tmp": "size=1g"}'),
    "volumes": (list_of(f"{NAME}:{PATH}(:r[ow])?"), '["data:/data:ro"], volumes by name'),
    "labels": (mapping(TEXT, TEXT), '{"team": "data"}'),
}
OPTIONAL = {"init", "stop_timeout", "shm_size", "tmpfs", "volumes", "labels"}


def check(description: str) -> tuple[list[str], str, dict[str, Json]]:
    """Return a description's variables, network and container arguments. ValueError tells each line to change."""
    match strict_json.parse(description):
        case {"docker": {"container_kwargs": dict(kwargs), **rest}, **others} if not others:
            given: dict[str, Json] = kwargs | rest
        case _:
            raise ValueError('  it must be {"docker": {"env_vars": …, "networks": …, "container_kwargs": …}}')
    wrong = [f'  add "{key}": {RULES[key][1]}' for key in RULES if key not in given and key not in OPTIONAL]
    for key, value in given.items():
        line = next((line.strip() for line in description.splitlines() if f'"{key}":' in line), f'"{key}"')
        if key not in RULES:
            wrong.append(f"  remove {line}")
        elif not RULES[key][0](value):
            wrong.append(f'  change {line} into the like of "{key}": {RULES[key][1]}')
    if wrong:
        raise ValueError("\n".join(wrong))
    return given.pop("env_vars"), given.pop("networks")[0], given
