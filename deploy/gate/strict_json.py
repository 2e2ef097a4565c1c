"""JSON that means the same to every reader."""

import json
from typing import Any

Json = Any  # whatever JSON can say


def parse(text: str) -> Json:
    """Parse JSON. ValueError if two keys of an object differ in case alone, which Go takes for one."""

    def unambiguous(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        if len({key.casefold() for key, _ in pairs}) < len(pairs):
            raise ValueError("an object has the same key twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unambiguous)


def parse_object(text: str) -> dict[str, Json]:
    """Parse JSON that is an object. ValueError if it is something else."""
    if not isinstance(parsed := parse(text), dict):
        raise ValueError("not an object")  # noqa: TRY004 - as of any other text that is not what it must be
    return parsed


def equal(one: Json, other: Json) -> bool:
    """Compare as JSON; for Python 1, 1.0 and true are equal."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
