"""Makes a run's container like its code server's container.

Whatever docker-compose.yml gives a code server, its runs get too: user, variables, volumes, host directories, secrets,
networks, devices. Only its socket, its limits and its restarts are its own.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from gate.errors import RefusedError
from gate.request import RunRequest
from gate.strict_json import Json

UNITS = {"g": 1 << 30, "m": 1 << 20, "k": 1 << 10, "b": 1}


class Limit(NamedTuple):
    """A limit of runs: the label of a code server that sets it, and how a run asks for another one."""

    label: str
    pattern: str
    example: str
    read: Callable[[str], int]  # a label's value, as the engine's API has it
    say: Callable[[int], str]
    tag: str
    setting: str

    @property
    def maximum(self) -> str:
        """The label for the most that a run may ask for; without it, the limit itself."""
        return f"{self.label}-max"


def _say_memory(size: int) -> str:
    return next(f"{size // unit}{name}" for name, unit in UNITS.items() if size % unit == 0)


MEMORY = "deployable-dagster.run.memory"
LIMITS = {  # by their names in a HostConfig
    "Memory": Limit(
        MEMORY,
        "[1-9][0-9]*[bkmg]",
        "2g",
        lambda text: int(text[:-1]) * UNITS[text[-1]],
        _say_memory,
        "docker/memory",
        "RUN_MEMORY_MAX",
    ),
    "CpuQuota": Limit(
        "deployable-dagster.run.cpu-percent",
        "[1-9][0-9]*",
        "200",
        lambda text: int(text) * 1000,  # microseconds in a tenth of a second
        lambda quota: f"{quota / 100_000:g}",
        "docker/cpus",
        "RUN_CPU_PERCENT_MAX",
    ),
    "PidsLimit": Limit("deployable-dagster.run.pids", "[1-9][0-9]*", "512", int, str, "docker/pids", "RUN_PIDS_MAX"),
}
SOCKETS = "/run/user_code"  # where a code server has its socket
ANONYMOUS = "[0-9a-f]{64}"  # names a volume that the engine made for one container
NAMED = rf"(?!{ANONYMOUS}$)[A-Za-z0-9][\w.-]*"  # and one that others can have too
COPIED = (  # of a container's HostConfig
    *("Init", "Runtime", "ReadonlyRootfs", "CapDrop", "SecurityOpt", "GroupAdd", "Tmpfs", "ShmSize", "Ulimits"),
    *("Sysctls", "LogConfig", "ExtraHosts", "Dns", "DnsOptions", "DnsSearch"),
    *("Devices", "DeviceCgroupRules", "DeviceRequests", "NetworkMode"),
)

# What no run may see: the deployment's own volumes and networks, and directories with which it would own the host.
OWN_VOLUMES, OWN_NETWORKS = ("edge", "gate", "launch", "postgres", "stop", "user_code"), ("database", "published")
HOST = tuple(
    map(PurePosixPath, ("/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/var/lib/docker", "/var/run"))
)
ENGINE_SOCKETS = ("docker.sock", "containerd.sock", "podman.sock")


@dataclass(frozen=True)
class Template:
    """The create request for the runs of one code server, and the further networks to connect them to."""

    body: dict[str, Json]
    networks: list[str]
    limits: dict[str, int]
    maxima: dict[str, int]

    def fill(self, run: RunRequest, labels: dict[str, str]) -> dict[str, Json]:
        """Return the body for a run, or refuse one that asks for more than it may."""
        for key, asked in run.limits.items():
            limit, most = LIMITS[key], self.maxima[key]
            if asked > most:
                raise RefusedError(
                    403,
                    f"the tag {limit.tag} asks for {limit.say(asked)}, and {limit.say(most)} is the most that a run "
                    f"may have: {limit.setting} in .env",
                )
        limits = {**self.limits, **run.limits}
        limits["MemorySwap"] = limits["Memory"]  # swap included
        env = self.body["Env"]
        if not any(variable.startswith("PYTHON_CPU_COUNT=") for variable in env):
            # As many workers as the host has cores would not fit into the run's memory.
            env = [f"PYTHON_CPU_COUNT={-(-limits['CpuQuota'] // 100_000)}", *env]
        return {
            **self.body,
            "Image": f"{run.repository}:{run.tag}",
            "Cmd": run.command,
            "Env": [*env, f"DAGSTER_RUN_JOB_NAME={run.job}"],
            "HostConfig": {**self.body["HostConfig"], **limits},
            "Labels": {**self.body["Labels"], **labels, "dagster/run_id": run.run_id, "dagster/job_name": run.job},
        }


def make(server: Json, image_variables: list[str]) -> Template:
    """Return the template for the runs of a code server, given what `docker inspect` says of its container."""
    config, host = server["Config"], server["HostConfig"]
    anonymous: dict[str, Json] = {target: {} for target in config["Volumes"] or {} if target != SOCKETS}
    binds, mounts = [], []
    for bind in host["Binds"] or []:
        source, target, *_ = bind.split(":")
        if re.fullmatch(ANONYMOUS, source):
            anonymous[target] = {}
        elif target != SOCKETS:
            binds.append(bind)
    for mount in host.get("Mounts") or []:
        if mount["Target"] != SOCKETS:
            kept = not re.fullmatch(ANONYMOUS, mount.get("Source", ""))
            mounts.append({key: value for key, value in mount.items() if kept or key != "Source"})
    labels = config["Labels"]
    body = {
        "User": config["User"],
        "Env": [variable for variable in config["Env"] or [] if variable not in image_variables],
        "Volumes": anonymous,
        "HostConfig": {
            **{key: host[key] for key in COPIED if host.get(key)},
            **({"Binds": binds} if binds else {}),
            **({"Mounts": mounts} if mounts else {}),
        },
        # Compose's own labels for a one-off container of the service, so that `docker compose down --remove-orphans`
        # stops and removes runs in progress too.
        "Labels": {
            "com.docker.compose.project": labels["com.docker.compose.project"],
            "com.docker.compose.service": labels["com.docker.compose.service"],
            "com.docker.compose.oneoff": "True",
            "com.docker.compose.config-hash": "run",
            "com.docker.compose.container-number": "1",
        },
    }
    if config.get("StopTimeout"):
        body["StopTimeout"] = config["StopTimeout"]
    networks = server["NetworkSettings"]["Networks"] or {}
    return Template(
        body,
        [networks[name]["NetworkID"] for name in networks if name != host["NetworkMode"]],
        limits={key: limit.read(labels[limit.label]) for key, limit in LIMITS.items()},
        maxima={key: limit.read(labels.get(limit.maximum, labels[limit.label])) for key, limit in LIMITS.items()},
    )


def find_problems(server: Json, devices: dict[str, str]) -> list[str]:
    """Say what to change in a code server's service, so that its runs cannot get more than code may have.

    `devices` are the host's directories behind named volumes.
    """
    return [*_find_privileges(server), *_find_exposures(server, devices), *_find_missing_limits(server)]


def _find_privileges(server: Json) -> Iterator[str]:
    config, host = server["Config"], server["HostConfig"]
    if not re.fullmatch("[1-9][0-9]*(:[1-9][0-9]*)?", config["User"]):
        yield 'set "user" to the number of a user other than root, such as "1000"'
    if host["Privileged"]:
        yield 'remove "privileged"'
    if host["CapAdd"]:
        yield 'remove "cap_add"'
    if host["CapDrop"] != ["ALL"]:
        yield 'set "cap_drop: [ALL]"'
    options = [option.replace("=", ":") for option in host["SecurityOpt"] or []]
    if not {"no-new-privileges", "no-new-privileges:true"}.intersection(options):
        yield 'add "no-new-privileges:true" to "security_opt"'
    for option in options:
        if option.endswith(("unconfined", ":disable")):
            yield f'remove "{option}" from "security_opt"'
    for setting, key in (("pid", "PidMode"), ("ipc", "IpcMode"), ("uts", "UTSMode"), ("userns_mode", "UsernsMode")):
        if host.get(key, "").startswith(("host", "container:")):
            yield f'remove "{setting}"'


def _find_exposures(server: Json, devices: dict[str, str]) -> Iterator[str]:
    project = server["Config"]["Labels"]["com.docker.compose.project"]
    mode = server["HostConfig"]["NetworkMode"]
    if mode in ("bridge", "default", "host", "none") or ":" in mode:
        yield 'remove "network_mode"'
    for name in server["NetworkSettings"]["Networks"] or {}:
        if name in (f"{project}_{own}" for own in OWN_NETWORKS):
            yield f'remove the network "{name}": it is not for your code'
    for mount in server["Mounts"]:
        name = mount.get("Name", "")
        path = mount["Source"] if mount["Type"] == "bind" else devices.get(name)
        if path and _exposes_host(path):
            yield f'remove "{path}" from "volumes": whoever has it owns the host'
        if name in (f"{project}_{own}" for own in OWN_VOLUMES) and mount["Destination"] != SOCKETS:
            yield f'remove "{name}" from "volumes": it is not for your code'


def _exposes_host(path: str) -> bool:
    mounted = PurePosixPath("/" + posixpath.normpath(path).lstrip("/"))
    return (
        any(directory.is_relative_to(mounted) for directory in HOST)
        or mounted.is_relative_to("/proc")
        or mounted.is_relative_to("/sys")
        or mounted.name in ENGINE_SOCKETS
    )


def _find_missing_limits(server: Json) -> Iterator[str]:
    labels: dict[str, Any] = server["Config"]["Labels"]
    for limit in LIMITS.values():
        values = {limit.label: labels.get(limit.label, ""), limit.maximum: labels.get(limit.maximum, limit.example)}
        for label, value in values.items():
            if not re.fullmatch(limit.pattern, value):
                yield f'set the label "{label}" to something like "{limit.example}"'
