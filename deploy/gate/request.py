"""What a client says of the run that it asks for."""

import json
import re
from dataclasses import dataclass
from typing import Self

from gate import strict_json
from gate.errors import RefusedError
from gate.strict_json import Json

TAG = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"  # as Docker has it

LIMITS = {"Memory", "CpuQuota", "PidsLimit"}  # of a HostConfig: what a run may ask for, up to a maximum

# The rest of what DockerRunLauncher sends, by docker-py, when it is told nothing else of the container.
REST: dict[str, Json] = {
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "NetworkDisabled": False,
    "HostConfig": {"NetworkMode": "default"},
}


@dataclass(frozen=True)
class RunRequest:
    """A run: its image, its command, the two labels by which Dagster names it, and limits of its own."""

    repository: str
    tag: str
    command: list[str]
    run_id: str
    job: str
    limits: dict[str, int]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read the body of a create request, or refuse."""
        try:
            asked = strict_json.parse(body.decode())
            match asked:
                case {
                    "Image": str(image),
                    "Cmd": ["dagster", "api", "execute_run" | "resume_run" as action, str(arguments)],
                    "Env": [str(variable)],
                    "Labels": {"dagster/run_id": str(run_id), "dagster/job_name": str(job), **labels},
                    "HostConfig": {**host},
                    **rest,
                } if not labels:
                    command = [
                        "dagster",
                        "api",
                        action,
                        json.dumps(strict_json.parse_object(arguments), allow_nan=False),
                    ]
                case _:
                    raise RefusedError(403, "not the image, the command and the labels of a run")
        except (ValueError, RecursionError):
            raise RefusedError(400, "not JSON of the right form") from None
        repository, _, tag = image.rpartition(":")
        if not re.fullmatch(TAG, tag):
            raise RefusedError(403, "not an image with a tag")
        if not re.fullmatch(r"[0-9a-f-]{36} \w{1,255}", f"{run_id} {job}", re.ASCII):
            raise RefusedError(403, "not the labels of a run")
        limits: dict[str, int] = {}
        for key in LIMITS & host.keys():
            limit = host.pop(key)
            if type(limit) is not int or not 0 < limit < 1 << 63:
                raise RefusedError(403, "a limit that is not a positive whole number")
            limits[key] = limit
        if variable != f"DAGSTER_RUN_JOB_NAME={job}" or not strict_json.equal({**rest, "HostConfig": host}, REST):
            raise RefusedError(403, "more than a run: what its container gets is written in docker-compose.yml alone")
        return cls(repository, tag, command, run_id, job, limits)
