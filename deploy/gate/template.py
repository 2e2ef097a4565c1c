"""Composes the create request for a run container."""

import json
import re

import docker

from gate import description, strict_json
from gate.errors import RefusedError
from gate.strict_json import Json


class Composer(docker.APIClient):
    """docker-py, composing the body of a create request as it does for the launcher, and sending nothing."""

    body: dict[str, Json]

    def create_container_from_config(
        self, config: Json, name: str | None = None, platform: str | None = None
    ) -> dict[str, str]:
        """Keep what would be sent."""
        self.body = {key: value for key, value in config.items() if value is not None}
        return {"Id": "none"}

    def inspect_container(self, container: Json) -> dict[str, str]:
        """Answer what docker-py asks afterwards."""
        return {"Id": "none"}


class Template:
    """The create request for the runs of one image, except for what differs from run to run."""

    def __init__(self, image: str, described: str, version: str) -> None:
        """Compose it, as the launcher would. ValueError if the description is unsafe: each line to change."""
        variables, network, kwargs = description.check(described)
        self.labels = kwargs.pop("labels", {})
        kwargs.pop("stop_timeout", None)  # the launcher's own: it says it when it stops a container
        self.fixed = dict(variable.split("=", 1) for variable in variables if "=" in variable)
        self.names = [*(variable.split("=")[0] for variable in variables), "DAGSTER_RUN_JOB_NAME"]
        client = docker.DockerClient(version=version)
        client.api = composer = Composer(version=version)
        client.containers.create(image, detach=True, network=network, **kwargs)
        self.body = composer.body

    def fill(self, asked: dict[str, Json]) -> dict[str, Json]:
        """Return the body to send for what a client asked for, or refuse."""
        match asked:
            case {
                "Cmd": ["dagster", "api", "execute_run" | "resume_run" as command, str(arguments)],
                "Env": [*pairs],
                "Labels": {"dagster/run_id": str(run), "dagster/job_name": str(job), **labels},
                **rest,
            }:
                env = dict(pair.split("=", 1) for pair in pairs)
            case _:
                raise RefusedError(403, "not a command, an environment and labels of a run")
        if not strict_json.equal(rest, self.body):
            differs = [key for key in self.body if not strict_json.equal(rest.get(key), self.body[key])]
            raise RefusedError(403, f"not as described: {', '.join(differs) or 'there is more'}")
        if len(env) < len(pairs) or env.keys() != set(self.names) or not self.fixed.items() <= env.items():
            raise RefusedError(403, "not the environment described")
        if labels != self.labels or not re.fullmatch(r"[0-9a-f-]{36} \w{1,255}", f"{run} {job}", re.ASCII):
            raise RefusedError(403, "not the labels described")
        if not isinstance(parsed := strict_json.parse(arguments), dict) or "\0" in "".join(env.values()):
            raise RefusedError(403, "not the arguments of a run")
        return {
            **self.body,
            "Cmd": ["dagster", "api", command, json.dumps(parsed, allow_nan=False)],
            "Env": [f"{name}={env[name]}" for name in self.names],
            "Labels": {**self.labels, "dagster/run_id": run, "dagster/job_name": job},
        }
