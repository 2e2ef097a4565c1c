"""Requests that must come to nothing, in families."""

import copy
import gzip
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.gate.engine import CODE_SERVER, EXITED, FOREIGN, OTHER, OWN

MARK = "hostile-mark"  # stands where a log must not repeat it
V = "/v0.00"  # stands for the version that the gate speaks, and is as long
LOGS = "logs?stderr=1&stdout=1&timestamps=0&follow=0&tail=20"  # the one query that is answered


class Attack(NamedTuple):
    """Bytes to send to a door."""

    family: str
    name: str
    raw: bytes
    door: str = "launch"


def http(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """Write a request."""
    head = [f"{method} {path} HTTP/1.1", "Host: gate", *headers]
    if body and not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        head.append(f"Content-Length: {len(body)}")
    if body and not any(header.lower().startswith("content-type") for header in headers):
        head.append("Content-Type: application/json")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def create(body: Any, *headers: str) -> bytes:
    """Write a request to create a container."""
    content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return http("POST", f"{V}/containers/create", content, *headers)


BAD = [True, False, "", "2g", "512", "150000", "0x10", [512], {"Value": 512}]  # no whole numbers
ALLOWED = {"Memory": 1 << 30, "CpuQuota": 100_000, "PidsLimit": 100}  # what a client may ask for
HOST_CONFIG: dict[str, dict[str, list[Any]]] = {
    "privilege": {
        "Privileged": [True, 1, "true"],
        "CapAdd": [["ALL"], ["SYS_ADMIN"], ["CAP_SYS_PTRACE"], []],
        "CapDrop": [[], None, ["NET_RAW"], ["all"], ["ALL", "ALL"]],
        "SecurityOpt": [
            [],
            None,
            ["no-new-privileges:false"],
            ["no-new-privileges:true", "seccomp=unconfined"],
            ["no-new-privileges:true", "apparmor=unconfined"],
            ["label=disable"],
            ["systempaths=unconfined"],
        ],
        "ReadonlyRootfs": [False, None, 1],
        "MaskedPaths": [[]],
        "ReadonlyPaths": [[]],
        "Devices": [[{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}]],
        "DeviceCgroupRules": [["a *:* rwm"]],
        "DeviceRequests": [[{"Count": -1, "Capabilities": [["gpu"]]}]],
        "Sysctls": [{"kernel.core_pattern": "|/x"}],
        "GroupAdd": [["0"], ["docker"]],
        "UsernsMode": ["host"],
        "Runtime": ["runc", "kata"],
        "CgroupParent": ["/", "system.slice"],
        "OomScoreAdj": [-1000],
        "OomKillDisable": [True],
        "StorageOpt": [{"size": "1P"}],
        "Isolation": ["hyperv"],
        "ConsoleSize": [[1, 1]],
        "Annotations": [{"run.oci.keep_original_groups": "1"}],
    },
    "limits": {
        **{
            key: [0, -1, -0.0, 0.5, 1.5, 512.0, 150000.0, 2147483648.0, 2**31 + 1, 2**50, 2**63, 2**64, 10**400, *BAD]
            for key in ("Memory", "CpuQuota", "PidsLimit")
        },
        "MemoryReservation": [1],
        "CpuPercent": [100],
        "CpuCount": [1],
        "BlkioDeviceReadBps": [[]],
        "MemorySwap": [-1],
        "MemorySwappiness": [100],
        "CpuPeriod": [1000],
        "NanoCpus": [64 * 10**9],
        "CpuShares": [10**6],
        "CpusetCpus": ["0-63"],
        "CpuRealtimeRuntime": [950000],
        "Ulimits": [[{"Name": "memlock", "Soft": -1, "Hard": -1}]],
        "ShmSize": [2**40],
        "BlkioWeight": [1000],
        "KernelMemory": [1],
        "Tmpfs": [None, {"/tmp": "exec"}, {"/tmp": "", "/etc": ""}],
        "AutoRemove": [True, False],
        "RestartPolicy": [{"Name": "always"}, {"Name": "on-failure", "MaximumRetryCount": 9}],
        "Init": [False],
        "LogConfig": [
            None,
            {"Type": "none", "Config": {}},
            {"Type": "json-file", "Config": {}},
            {"Type": "syslog", "Config": {"syslog-address": "tcp://192.0.2.1:514"}},
            {"Type": "fluentd", "Config": {"fluentd-address": "unix:///var/run/docker.sock"}},
            {"Type": "json-file", "Config": {"max-size": "10m", "env": "CONNECTION_CREDENTIALS"}},
        ],
        "ContainerIDFile": ["/etc/cron.d/x"],
    },
    "mounts": {
        "Binds": [
            None,
            [],
            ["/:/host"],
            ["/var/run/docker.sock:/var/run/docker.sock"],
            ["/var/run:/x:ro"],
            ["/etc:/etc:rw,rshared"],
            ["project_launch:/run/gate"],
            ["project_postgres:/data"],
            ["project_data:/data:z"],
            ["project_data:/data:nocopy"],
            ["../data:/data"],
            ["//:/data"],
            {"/": {"bind": "/host", "mode": "rw"}},
        ],
        "Mounts": [
            [{"Type": "bind", "Source": "/", "Target": "/host"}],
            [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/s", "ReadOnly": True}],
            [{"Type": "bind", "Source": "/", "Target": "/h", "BindOptions": {"Propagation": "rshared"}}],
            [{"Type": "volume", "Source": "project_launch", "Target": "/run/gate"}],
            [
                {
                    "Type": "volume",
                    "Target": "/h",
                    "VolumeOptions": {
                        "DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}
                    },
                }
            ],
            [{"Type": "tmpfs", "Target": "/t"}],
            [{"Type": "npipe", "Source": "x", "Target": "y"}],
            [{"Type": "image", "Source": "alpine", "Target": "/i"}],
            [],
        ],
        "VolumesFrom": [[FOREIGN], ["postgres:rw"]],
        "VolumeDriver": ["local", "sshfs"],
    },
    "namespaces": {
        "NetworkMode": [
            "host",
            "none",
            "bridge",
            None,
            "other_default",
            f"container:{FOREIGN}",
            "ns:/proc/1/ns/net",
        ],
        "PidMode": ["host", f"container:{FOREIGN}"],
        "IpcMode": ["host", "shareable", f"container:{FOREIGN}"],
        "UTSMode": ["host"],
        "CgroupnsMode": ["host"],
        "UsernsMode": ["host:"],
        "Links": [["postgres:db"]],
        "ExtraHosts": [["host.docker.internal:host-gateway"], ["postgres:192.0.2.1"]],
        "Dns": [["192.0.2.1"]],
        "DnsSearch": [["example.com"]],
        "PortBindings": [{"22/tcp": [{"HostPort": "22"}]}],
        "PublishAllPorts": [True],
    },
}
CONFIG: dict[str, dict[str, list[Any]]] = {
    "privilege": {
        "User": ["0", "root", "", None, "0:0", "1000:0", 0, 1000, "1001"],
        "Entrypoint": [["sh", "-c", "id"], [], "sh", [""]],
        "Healthcheck": [{"Test": ["CMD-SHELL", "id"]}],
        "Shell": [["sh"]],
        "OnBuild": [["RUN id"]],
        "WorkingDir": ["/", "/proc/self/fd/8"],
        "StopSignal": ["SIGCHLD"],
        "StopTimeout": [10**6],
        "Tty": [True, 0, 1, None],
        "OpenStdin": [True],
        "AttachStdin": [True],
        "Privileged": [True],
        "HostConfig": [None, {}, [], "x"],
        "Volumes": [{"/": {}}, None],
        "ArgsEscaped": [True],
        "Runtime": ["x"],
        "platform": ["linux/arm64"],
    },
    "namespaces": {
        "NetworkingConfig": [
            None,
            {"EndpointsConfig": {"other_default": {}}},
            {"EndpointsConfig": {"project_default": {"Aliases": ["postgres"]}}},
            {"project_default": {"IPAMConfig": {"IPv4Address": "192.0.2.1"}}},
        ],
        "NetworkDisabled": [True],
        "Hostname": ["postgres"],
        "Domainname": ["x"],
        "MacAddress": ["02:42:ac:11:00:02"],
        "ExposedPorts": [{"22/tcp": {}}],
    },
    "images": {
        "Image": [
            *("alpine", "postgres:17", "project-dagster", "project-gate", "", None, 0, [], {}, True),
            *("alpine:1", "project-dagster:1", "project-gate:1", "project-user_codex:1", "project-user_code"),
            *("project-user_code:", "project-user_code::1", "project-user_code:1:2", "project-user_code:1@sha256:0"),
            *("project-user_code@sha256:" + "0" * 64, "project-user_code:1@sha256:" + "0" * 64),
            *("project-user_code@sha256:", "project-user_code:5000/x", "project-user_code:5000/project-user_code:1"),
            *("localhost:5000/project-user_code:1", "docker.io/library/project-user_code:1", "./project-user_code:1"),
            *("PROJECT-USER_CODE:1", "Project-user_code:1", " project-user_code:1", "project-user_code:1 "),
            *("project-user_code :1", "project-user_code: 1", "project-user_code:.1", "project-user_code:-1"),
            *("project-user_code:1/2", "project-user_code:\u0661", "project-user_code:" + "1" * 129, ":1", ":"),
            *("project-user_code:1\n", "project-user_code:1\0", "project-user_code:1\nalpine", "project-user_code\n:1"),
            *(
                "project-user_code\n",
                "project-user_code\0",
                "sha256:" + "0" * 64,
                "0" * 64,
                "project-user",
                "192.0.2.1:5000/x",
            ),
            *(["project-user_code"], {"project-user_code": 1}),
        ]
    },
    "commands": {
        "Cmd": [
            None,
            [],
            "dagster api execute_run {}",
            ["sh", "-c", "id"],
            ["dagster"],
            ["dagster", "api", "execute_run"],
            ["dagster", "api", "execute_run", "{}", "--help"],
            ["dagster", "api", "execute_run", "--help"],
            ["dagster", "api", "execute_run", "[]"],
            ["dagster", "api", "execute_run", "1"],
            ["dagster", "api", "execute_run", '"{}"'],
            ["dagster", "api", "execute_run", "{}{}"],
            ["dagster", "api", "execute_run", '{"a": 1, "a": 2}'],
            ["dagster", "api", "execute_run", '{"a": 1, "A": 2}'],
            ["dagster", "api", "execute_run", "{'a': 1}"],
            ["dagster", "api", "execute_run", {}],
            ["dagster", "api", "execute_step", "{}"],
            ["dagster", "api", "grpc", "{}"],
            ["dagster", "api", "EXECUTE_RUN", "{}"],
            ["dagster", "api", "execute_run;id", "{}"],
            ["dagster", "run", "execute_run", "{}"],
            ["dagster-daemon", "api", "execute_run", "{}"],
            ["/bin/sh", "api", "execute_run", "{}"],
            ["python", "-m", "dagster", "api", "execute_run", "{}"],
            ["dagster", "job", "execute", "{}"],
            [["dagster"], "api", "execute_run", "{}"],
            {"0": "dagster", "1": "api", "2": "execute_run", "3": "{}"},
        ]
    },
}


def changed(body: dict[str, Any], key: str, value: Any, inside: str | None = None) -> dict[str, Any]:
    """Copy a body with one field set, or gone."""
    body = copy.deepcopy(body)
    part = body[inside] if inside else body
    if value is None:
        part.pop(key, None)
    else:
        part[key] = value
    return body


def fields(body: dict[str, Any]) -> Iterator[Attack]:
    """Every field of a create request, as it must not be."""
    for inside, table in (("HostConfig", HOST_CONFIG), (None, CONFIG)):
        for family, keys in table.items():
            for key, values in keys.items():
                for value in values:
                    if key in (body[inside] if inside else body) or value is not None:
                        yield Attack(family, f"{key}={value!r}"[:80], create(changed(body, key, value, inside)))


def granted(body: dict[str, Any]) -> Iterator[Attack]:
    """Ask for what the operator gave the code server: runs get it anyway, and no client decides."""
    for inside in ("HostConfig", "Config"):
        for key, value in CODE_SERVER[inside].items():
            if value is not None and key not in ("Image", "Cmd", "Labels", *ALLOWED):
                part = "HostConfig" if inside == "HostConfig" else None
                yield Attack("what the operator granted", key, create(changed(body, key, value, part)))


def beside_limits(body: dict[str, Any]) -> Iterator[Attack]:
    """More than the three limits that a client may ask for, beside them."""
    asked = {**body, "HostConfig": {**body["HostConfig"], **ALLOWED}}
    others = {key: values[0] for keys in HOST_CONFIG.values() for key, values in keys.items() if key not in ALLOWED}
    for key, value in others.items():
        yield Attack("limits", f"{key} beside limits", create(changed(asked, key, value or True, "HostConfig")))
    text = json.dumps(asked)
    for key, value in ALLOWED.items():
        for name in (key, key.lower(), key.upper(), f" {key}", f"{key}\0"):
            for huge in (10**6, "null", "1e3", "NaN", "-Infinity", "9" * 9000):
                tricky = text.replace(f'"{key}": ', f'{json.dumps(name)}: {huge}, "{key}": ')
                yield Attack("limits", f"{name!r} twice, {huge}"[:80], create(tricky))
        for name in (key.lower(), f"{key} "):
            yield Attack("limits", f"only {name!r}", create(changed(body, name, value, "HostConfig")))
        for above in ("null", "1e3", "01", "+1", "1_000", "0x10", "NaN", "Infinity", "[]"):
            yield Attack("limits", f"{key} is {above}", create(text.replace(f'"{key}": {value}', f'"{key}": {above}')))
        yield Attack("limits", f"{key} outside of HostConfig", create({**body, key: value}))


def environment(body: dict[str, Any]) -> Iterator[Attack]:
    """Variables: a client may give none but the job's name."""
    env = body["Env"]
    cases: dict[str, Any] = {
        "one more": [*env, "LD_PRELOAD=/data/x.so"],
        "path": [*env, "PATH=/data"],
        "database": [*env, "PGHOST=192.0.2.1"],
        "twice": [*env, *env],
        "twice, other value": [*env, "DAGSTER_RUN_JOB_NAME=x"],
        "other value": ["DAGSTER_RUN_JOB_NAME=x"],
        "another": ["PYTHONPATH=/data"],
        "lower case": [env[0].lower()],
        "no value": [env[0].split("=")[0]],
        "null byte": [env[0] + "\0LD_PRELOAD=/x"],
        "new line": [env[0] + "\n"],
        "space before =": [env[0].replace("=", " =", 1)],
        "empty name": ["=x"],
        "number": [1],
        "list": [env],
        "null": [None],
        "empty": [],
        "missing": None,
        "mapping": dict(pair.split("=", 1) for pair in env),
        "string": env[0],
    }
    for name, value in cases.items():
        yield Attack("environment", name, create(changed(body, "Env", value)))


def labels(body: dict[str, Any]) -> Iterator[Attack]:
    """Labels: a client may give none but the run's and the job's."""
    given = body["Labels"]
    cases: dict[str, Any] = {
        "owner": {**given, "deployable-dagster.gate": "project"},
        "other owner": {**given, "deployable-dagster.gate": "another-project"},
        "one more": {**given, "traefik.enable": "true"},
        "other project": {**given, "com.docker.compose.project": "another"},
        "not one-off": {**given, "com.docker.compose.oneoff": "False"},
        "no run": {key: value for key, value in given.items() if key != "dagster/run_id"},
        "no job": {key: value for key, value in given.items() if key != "dagster/job_name"},
        "code server": {**given, "deployable-dagster.run.memory": "999999g"},
        "run with a new line": {**given, "dagster/run_id": f"x\n{MARK}"},
        "run is a path": {**given, "dagster/run_id": "../../../../etc/passwd"},
        "run too long": {**given, "dagster/run_id": "a" * 5000},
        "job with colour": {**given, "dagster/job_name": f"\x1b[31m{MARK}"},
        "job with a new line": {**given, "dagster/job_name": "x\n"},
        "number": {**given, "com.docker.compose.container-number": 1},
        "null": {**given, "com.docker.compose.oneoff": None},
        "empty": {},
        "missing": None,
        "list": list(given),
        "string": MARK,
    }
    for name, value in cases.items():
        yield Attack("labels", name, create(changed(body, "Labels", value)))


def json_tricks(body: dict[str, Any]) -> Iterator[Attack]:
    """Texts that different readers read differently, or that break one."""
    text = json.dumps(body)
    evil = '{"Privileged": true, "Binds": ["/:/host"]}'
    inner = text.replace('"HostConfig": {', '"HostConfig": {%s, ', 1)
    cases: dict[str, str | bytes] = {
        **{
            f"{key} beside HostConfig": f'{text[:-1]}, "{key}": {evil}}}'
            for key in ("hostconfig", "HOSTCONFIG", "hostConfig")
        },
        **{
            f"{key} in HostConfig": inner % f'"{key}": true'
            for key in (
                "privileged",
                "PRIVILEGED",
                "\\u0050rivileged",
                "pr\\u0069vileged",
                "Privileged ",
                "Privileged\\u0000",
            )
        },
        **{
            f"{key} in HostConfig": inner % f'"{key}": ["/:/host"]'
            for key in ("binds", "BINDS", "Bind\\u017f", "bind\u017f", "\\u0042inds", "mounts")
        },
        "long s": f'{text[:-1]}, "Ho\u017ftConfig": {evil}}}',
        "kelvin": f'{text[:-1]}, "Networ\u212aingConfig": {{}}}}',
        "HostConfig twice, evil last": f'{text[:-1]}, "HostConfig": {evil}}}',
        "HostConfig twice, evil first": f'{{"HostConfig": {evil}, {text[1:]}',
        "HostConfig twice, escaped": f'{text[:-1]}, "\\u0048ostConfig": {evil}}}',
        "Image twice": f'{text[:-1]}, "Image": "alpine"}}',
        "image beside Image": f'{text[:-1]}, "image": "alpine"}}',
        "user beside User": f'{text[:-1]}, "user": "0"}}',
        "Cmd twice": f'{text[:-1]}, "Cmd": ["sh"]}}',
        "cmd beside Cmd": f'{text[:-1]}, "cmd": ["sh"]}}',
        "env beside Env": f'{text[:-1]}, "env": ["LD_PRELOAD=x"]}}',
        "entrypoint": f'{text[:-1]}, "entrypoint": ["sh"]}}',
        "labels beside Labels": f'{text[:-1]}, "labels": {{}}}}',
        "label twice": text.replace('"Labels": {', '"Labels": {"dagster/run_id": "x", ', 1),
        "null field": f'{text[:-1]}, "Entrypoint": null}}',
        "wrapped": f'{{"Config": {text}}}',
        "in a list": f"[{text}]",
        "two documents": text + text,
        "two documents, evil last": f'{text}\n{{"Image": "alpine", "HostConfig": {evil}}}',
        "rubbish behind": text + "x",
        "null byte behind": text + "\0",
        "comment": "/* */" + text,
        "byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "utf-16": text.encode("utf-16"),
        "utf-32": text.encode("utf-32"),
        "not utf-8": text.encode().replace(b"clean_string_job", b"clean_\xff\xfe_job"),
        "overlong": text.encode().replace(b"clean_string_job", b"\xc0\xafjob"),
        "NaN": text.replace('"Tty": false', '"Tty": NaN'),
        "Infinity": text.replace('"Tty": false', '"Tty": -Infinity'),
        "1e400": text.replace('"Tty": false', '"Tty": 1e400'),
        "0 for false": text.replace('"Tty": false', '"Tty": 0'),
        "float limit": text.replace('"PidsLimit": 512', '"PidsLimit": 512.0'),
        "1 for true": text.replace('"ReadonlyRootfs": true', '"ReadonlyRootfs": 1'),
        "huge number": text.replace('"PidsLimit": 512', '"PidsLimit": ' + "9" * 9000),
        "deep list": "[" * 60000,
        "deep object": '{"a":' * 20000,
        "deep arguments": json.dumps(changed(body, "Cmd", ["dagster", "api", "execute_run", '{"a":' * 9000])),
        "single quotes": text.replace('"', "'"),
        "trailing comma": text[:-1] + ",}",
        "half": text[: len(text) // 2],
        "nothing but space": " " * 50,
        **{f"only {value}": value for value in ("null", "true", "1", '"x"', "[]", "{}", MARK)},
    }
    for name, value in cases.items():
        if value != text:
            yield Attack("JSON tricks", name, create(value))


def containers() -> Iterator[Attack]:
    """Containers that are not this deployment's runs, and ids that are none."""
    what = {"json": "GET", "start": "POST", "stop": "POST", LOGS: "GET"}
    ids = {
        "foreign": FOREIGN,
        "of another deployment": OTHER,
        "absent": "d" * 64,
        "name": "postgres",
        "short": OWN[:12],
        "63": OWN[:63],
        "65": OWN + "0",
        "upper case": OWN.upper(),
        "other digits": "\u0661".encode().decode("latin-1") * 32,
        "dots": "..",
        "slash before": f"/{FOREIGN}",
        "up from own": f"{OWN}/../{FOREIGN}",
        "escaped": "%62" + FOREIGN[1:],
        "parameter": f"{FOREIGN};x",
        "semicolon": f"{OWN};{FOREIGN}",
    }
    for name, id_ in ids.items():
        for action, method in what.items():
            for door in ("launch", "stop"):
                if action != "start" or door == "launch":
                    yield Attack(
                        "foreign containers",
                        f"{name} {action} at {door}",
                        http(method, f"{V}/containers/{id_}/{action}"),
                        door,
                    )
    yield Attack("foreign containers", "ended", http("POST", f"{V}/containers/{EXITED}/start"))


def powers() -> Iterator[Attack]:
    """Whatever else one may do to a container, be it one's own."""
    actions = [
        *(
            "POST exec",
            "POST attach",
            "GET attach/ws",
            "GET logs?stdout=1",
            "GET archive?path=/",
            "HEAD archive?path=/",
        ),
        *(
            "PUT archive?path=/",
            "GET export",
            "GET changes",
            "GET top",
            "GET stats",
            "POST stats",
            "POST resize?h=1&w=1",
        ),
        *("POST rename?name=x", "POST update", "POST kill", "POST kill?signal=9", "POST pause", "POST unpause"),
        *(
            "POST restart",
            "POST wait",
            "POST copy",
            "GET checkpoints",
            "POST checkpoints",
            "DELETE ",
            "DELETE ?force=1&v=1",
        ),
    ]
    for action in actions:
        method, _, path = action.partition(" ")
        path = f"{V}/containers/{OWN}/{path}" if path and path[0] != "?" else f"{V}/containers/{OWN}{path}"
        for door in ("launch", "stop"):
            yield Attack("exec, attach, archive, logs", f"{action} at {door}", http(method, path), door)
    for path in ("exec/1/start", "exec/1/resize", "exec/1/json"):
        yield Attack("exec, attach, archive, logs", path, http("POST", f"{V}/{path}", b'{"Detach": true}'))
    body = b'{"AttachStdout": true, "Cmd": ["id"], "Privileged": true}'
    yield Attack("exec, attach, archive, logs", "exec with a body", http("POST", f"{V}/containers/{OWN}/exec", body))


def engine() -> Iterator[Attack]:
    """Images, volumes, networks, swarm, and the engine itself."""
    requests = [
        *(
            "GET images/json",
            "POST images/create?fromImage=alpine&tag=latest",
            "POST images/create?fromSrc=-",
            "POST images/load",
        ),
        *(
            "GET images/get?names=postgres",
            "GET images/alpine/get",
            "GET images/postgres:17/json",
            "POST images/alpine/push",
        ),
        *("POST images/postgres/tag?repo=project-user_code", "DELETE images/postgres:17?force=1", "POST images/prune"),
        *(
            "GET images/search?term=x",
            "GET images/alpine/history",
            "POST commit?container=" + OWN,
            "POST build?remote=x",
            "POST build",
        ),
        *(
            "POST build/prune",
            "POST build/cancel?id=1",
            "POST auth",
            "GET distribution/alpine/json",
            "POST session",
            "POST grpc",
        ),
        *(
            "GET volumes",
            "POST volumes/create",
            "GET volumes/project_secret",
            "DELETE volumes/project_postgres?force=1",
        ),
        *(
            "PUT volumes/project_data",
            "POST volumes/prune",
            "GET networks",
            "GET networks/project_default",
            "POST networks/create",
        ),
        *("POST networks/project_default/connect", "POST networks/project_default/disconnect", "POST networks/prune"),
        *(
            "DELETE networks/project_default",
            "GET containers/json",
            "GET containers/json?all=1",
            "POST containers/prune",
        ),
        *(
            "GET swarm",
            "POST swarm/init",
            "POST swarm/join",
            "POST swarm/leave?force=1",
            "GET swarm/unlockkey",
            "GET nodes",
        ),
        *("GET services", "POST services/create", "GET tasks", "GET secrets", "POST secrets/create", "GET configs"),
        *(
            "POST configs/create",
            "GET plugins",
            "POST plugins/pull?remote=x",
            "POST plugins/x/enable",
            "GET plugins/privileges?remote=x",
        ),
        *(
            "GET info",
            "GET events",
            "GET system/df",
            "GET _ping",
            "HEAD _ping",
            "GET version",
            "GET debug/pprof/",
            "GET metrics",
        ),
        *("GET debug/vars", "GET "),
    ]
    for request in requests:
        method, _, path = request.partition(" ")
        family = path.split("/")[0].split("?")[0].strip("_")
        family = (
            "images, volumes, networks, swarm" if family in ("images", "volumes", "networks", "swarm") else "the engine"
        )
        yield Attack(family, request, http(method, f"{V}/{path}"))
        yield Attack(family, f"{request}, no version", http(method, f"/{path}" if path != "version" else "/version/"))
    mount = b'{"Name": "x", "DriverOpts": {"type": "none", "o": "bind", "device": "/"}}'
    yield Attack("images, volumes, networks, swarm", "volume on /", http("POST", f"{V}/volumes/create", mount))


def paths(body: dict[str, Any], version: str) -> Iterator[Attack]:
    """Other ways to write the path, the query, the version and the method."""
    content = json.dumps(body).encode()
    for path in (
        "/containers/create",
        *(f"/v{other}/containers/create" for other in ("1.24", "1.40", "1.41", "1.44") if other != version),
        *(
            f"/v{version.replace('.', '.0')}/containers/create",
            f"{V}.0/containers/create",
            f"/v{version.replace('.', 'x')}/containers/create",
            f"/V{version}/containers/create",
        ),
        *(
            "/v/containers/create",
            f"/{V}/containers/create",
            f"{V}//containers/create",
            f"{V}/containers//create",
        ),
        *(
            f"{V}/containers/create/",
            f"{V}/./containers/create",
            f"{V}/x/../containers/create",
            f"{V}/containers/Create",
        ),
        *(
            f"{V}/containers/%63reate",
            f"{V}%2fcontainers/create",
            f"{V}/containers/create%00",
            f"{V}/containers/create%3f",
        ),
        *(
            f"{V}/containers/create?name=postgres",
            f"{V}/containers/create?",
            f"{V}/containers/create?platform=linux",
        ),
        *(
            f"{V}/containers/create#x",
            f"{V}/containers/create;x",
            f"{V}\\containers\\create",
            f"{V[1:]}/containers/create",
        ),
        *(
            f"http://engine{V}/containers/create",
            f"unix://{V}/containers/create",
            f"{V}/containers/create\t",
            "*",
        ),
        "/" + "a" * 9000,
    ):
        yield Attack("paths and versions", f"create at {path[:60]}", http("POST", path, content))
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post", "POSTX", "PROPFIND", "COPY"):
        yield Attack("paths and versions", f"{method} create", http(method, f"{V}/containers/create", content))
    for method in ("HEAD", "POST", "OPTIONS", "CONNECT", "get"):
        yield Attack("paths and versions", f"{method} version", http(method, "/version"))
    for path in (
        "/version?x=1",
        "/version/",
        "//version",
        "/%76ersion",
        "/version%00",
        "/Version",
        "/version;x",
        f"{V}/version",
    ):
        yield Attack("paths and versions", path, http("GET", path))
    stop = f"{V}/containers/{OWN}/stop"
    for query in (
        *(
            "?",
            "?t=",
            "?t=-1",
            "?t=+1",
            "?t=1.5",
            "?t=1e9",
            "?t=100",
            "?t=99999",
            "?t=0x10",
            "?t=1&t=2",
            "?t=1&signal=SIGKILL",
            "?signal=KILL",
        ),
        *("?T=1", "?t=1%30", "?t=1;t=2", "?t=1#", "?x=1", "?t=\u0661".encode().decode("latin-1"), "/?t=1"),
    ):
        for door in ("launch", "stop"):
            yield Attack("paths and versions", f"stop{query} at {door}", http("POST", stop + query, b""), door)
    for action in (
        "json?size=1",
        "json?",
        "json/",
        "start?checkpoint=x",
        "start?detachKeys=x",
        "start?checkpoint-dir=/",
    ):
        method = "GET" if action.startswith("json") else "POST"
        yield Attack("paths and versions", action, http(method, f"{V}/containers/{OWN}/{action}"))
    for query in (
        *("", "?", "?stdout=1", "?tail=20", "?stderr=1&stdout=1", "?stdout=1&stderr=1&timestamps=0&follow=0&tail=20"),
        *(
            LOGS[4:].replace("tail=20", tail)
            for tail in ("tail=all", "tail=2000", "tail=-1", "tail=20&since=1", "tail=")
        ),
        *(LOGS[4:].replace("follow=0", follow) for follow in ("follow=1", "follow=0&follow=1", "follow=%30")),
        *(f"{LOGS[4:]}&details=1", f"{LOGS[4:]}#", f"{LOGS[4:]}&", f"/{LOGS[4:]}"),
    ):
        for door in ("launch", "stop"):
            yield Attack(
                "paths and versions",
                f"logs{query} at {door}",
                http("GET", f"{V}/containers/{EXITED}/logs{query}"),
                door,
            )
    yield Attack("paths and versions", "logs of one that runs", http("GET", f"{V}/containers/{OWN}/{LOGS}"))
    for request in (("POST", f"{OWN}/json"), ("GET", f"{OWN}/start"), ("PUT", f"{OWN}/stop"), ("GET", f"{OWN}/stop")):
        yield Attack("paths and versions", " ".join(request)[:20], http(request[0], f"{V}/containers/{request[1]}"))


def smuggling(body: dict[str, Any]) -> Iterator[Attack]:
    """Hide a request in another."""
    content = json.dumps(body).encode()
    evil_body = json.dumps(changed(body, "Privileged", True, "HostConfig")).encode()
    evil = create(evil_body)
    size = len(evil)
    inspect, version = f"{V}/containers/{OWN}/json", "/version"
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    cases = {
        "behind version": http("GET", version) + evil,
        "behind inspect": http("GET", inspect) + evil,
        "behind a refused one": http("GET", "/info") + evil,
        "behind a good create": create(content) + evil,
        "twenty in a row": http("GET", version) * 20 + evil,
        "body on version": http("GET", version, evil),
        "body on inspect": http("GET", inspect, evil),
        "body on start": http("POST", f"{V}/containers/{OWN}/start", evil),
        "body on stop": http("POST", f"{V}/containers/{OWN}/stop", b'{"Privileged": true}'),
        "chunked": create(chunked, "Transfer-Encoding: chunked"),
        "chunked and length": create(chunked, "Transfer-Encoding: chunked", f"Content-Length: {len(content)}"),
        "length and chunked": create(b"0\r\n\r\n" + evil, "Content-Length: 5", "Transfer-Encoding: chunked"),
        "length of nothing, chunked": create(b"0\r\n\r\n" + evil, "Content-Length: 0", "Transfer-Encoding: chunked"),
        "chunked inspect": http("GET", inspect, b"0\r\n\r\n" + evil, "Transfer-Encoding: chunked"),
        "identity": create(content, "Transfer-Encoding: identity", f"Content-Length: {len(content)}"),
        "xchunked": create(content, "Transfer-Encoding: xchunked", f"Content-Length: {len(content)}"),
        "chunked, gzip": create(content, "Transfer-Encoding: gzip, chunked"),
        "tab chunked": create(chunked, "Transfer-Encoding:\tchunked"),
        "space before colon": create(content, "Transfer-Encoding : chunked", f"Content-Length: {len(content)}"),
        "two lengths": create(
            content + evil, f"Content-Length: {len(content)}", f"Content-Length: {len(content) + size}"
        ),
        "two equal lengths": create(content, f"Content-Length: {len(content)}", f"Content-Length: {len(content)}"),
        "list of lengths": create(content, f"Content-Length: {len(content)}, {len(content)}"),
        "negative length": create(content, "Content-Length: -1"),
        "plus length": create(content, f"Content-Length: +{len(content)}"),
        "hex length": create(content, f"Content-Length: {len(content):#x}"),
        "huge length": create(content, f"Content-Length: {'9' * 30}"),
        "short length": create(content + evil, "Content-Length: 10"),
        "length with words": create(content, f"Content-Length: {len(content)} x"),
        "no length": http("POST", f"{V}/containers/create"),
        "zero length": create(b"", "Content-Length: 0") + evil,
        "upgrade h2c": create(content, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"),
        "upgrade tcp": http("POST", f"{V}/containers/{OWN}/start", b"", "Connection: Upgrade", "Upgrade: tcp") + evil,
        "upgrade version": http("GET", version, b"", "Connection: Upgrade", "Upgrade: tcp") + evil,
        "websocket": http("GET", inspect, b"", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==")
        + evil,
        "expect": create(content, "Expect: 100-continue"),
        "expect else": create(content, "Expect: x"),
        "gzip": create(gzip.compress(content), "Content-Encoding: gzip"),
        "deflate": create(content, "Content-Encoding: deflate"),
        "identity encoding": create(content, "Content-Encoding: identity"),
        "gzip bomb": create(gzip.compress(b"0" * 10**7), "Content-Encoding: gzip"),
        "method override": http("GET", version, b"", "X-HTTP-Method-Override: POST"),
        "original url": http("GET", version, b"", f"X-Original-URL: {V}/containers/create"),
        "registry login": create(content, "X-Registry-Auth: e30="),
        "folded header": create(
            content, "User-Agent: x\r\n Transfer-Encoding: chunked", f"Content-Length: {len(content)}"
        ),
        "bare new line": create(content).replace(b"\r\n", b"\n"),
        "bare return": create(content).replace(b"\r\n", b"\r"),
        "header with null": create(content, "User-Agent: a\0b"),
        "header without name": create(content, ": x"),
        "header without colon": create(content, "x"),
        "two hosts": create(content, "Host: engine"),
        "form": create(content, "Content-Type: application/x-www-form-urlencoded", "Cookie: x"),
        "http/0.9": b"GET /version\r\n" + evil,
        "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + evil,
        "http/9.9": create(content).replace(b"HTTP/1.1", b"HTTP/9.9"),
        "http/1.0 behind": http("GET", version).replace(b"HTTP/1.1", b"HTTP/1.0") + evil,
        "tls": bytes.fromhex("16030100f4010000f00303") + evil,
        "rubbish": bytes(range(256)) * 4,
        "blank lines before": b"\r\n" * 50 + http("GET", "/info"),
        "path with a new line": f"GET {version}\r\nX: y HTTP/1.1\r\n\r\n".encode() + evil,
        "connect": http("CONNECT", "engine:80") + evil,
        "trailer": create(b"0\r\nX: y\r\n\r\n", "Transfer-Encoding: chunked", "Trailer: X"),
    }
    for name, raw in cases.items():
        yield Attack("smuggling", name, raw)


def slow_and_huge(body: dict[str, Any]) -> Iterator[Attack]:
    """Send what never ends, or is too large."""
    content = json.dumps(body).encode()
    large = json.dumps({**body, "Env": [f"{pair}{'x' * 80000}" for pair in body["Env"]]}).encode()
    cases = {
        "large body": create(large),
        "megabytes": create(b" " * 5_000_000 + content),
        "large in length only": create(content, "Content-Length: 99999999"),
        "many headers": http("GET", "/version", b"", *(f"X-{i}: y" for i in range(5000))),
        "same header often": http("GET", "/version", b"", *(["Accept: x"] * 5000)),
        "long header": http("GET", "/version", b"", "User-Agent: " + "x" * 100_000),
        "long method": b"A" * 100_000 + b" /version HTTP/1.1\r\n\r\n",
        "half a body": create(content)[:-10],
        "half a header": create(content)[:40],
        "one byte": b"P",
        "nothing": b"",
        "line only": b"GET /version HTTP/1.1\r\n",
    }
    for name, raw in cases.items():
        yield Attack("slow and huge", name, raw)


def stop_door(body: dict[str, Any]) -> Iterator[Attack]:
    """Ask as Dagit for what only the daemon may."""
    for name, raw in {
        "create": create(body),
        "start": http("POST", f"{V}/containers/{OWN}/start"),
        "start ended": http("POST", f"{V}/containers/{EXITED}/start"),
        "logs": http("GET", f"{V}/containers/{EXITED}/{LOGS}"),
        "create behind version": http("GET", "/version") + create(body),
    }.items():
        yield Attack("launching at the wrong door", name, raw, "stop")


def attacks(body: dict[str, Any], version: str) -> list[Attack]:
    """List all attacks, each of them once, made from the body that the launcher sends to this version of the API."""
    made = [
        *(
            *fields(body),
            *granted(body),
            *beside_limits(body),
            *environment(body),
            *labels(body),
            *json_tricks(body),
            *containers(),
            *powers(),
            *engine(),
        ),
        *(*paths(body, version), *smuggling(body), *slow_and_huge(body), *stop_door(body)),
    ]
    real = (attack._replace(raw=attack.raw.replace(V.encode(), f"/v{version}".encode())) for attack in made)
    return list({(attack.raw, attack.door): attack for attack in real}.values())
