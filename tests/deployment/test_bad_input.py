"""Whatever parses input rejects what is invalid, and keeps running."""

import json
import random
import subprocess
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import requests
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pipeline import clean_string_job
from tests.stack import JOB, LOCATION, Deployment

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def op_config(**fields: Any) -> st.SearchStrategy[Any]:
    """Return configs of an op in which each field is missing, has a valid value, or has any value."""
    optional = {name: st.sampled_from(good) | JSON for name, good in fields.items()}
    return st.fixed_dictionaries({}, optional={"config": st.fixed_dictionaries({}, optional=optional) | JSON})


OP_CONFIGS = {
    "get_string": op_config(data_key=["1", "2"]),
    "normalize_string": op_config(norm=["upper", "LOWER"], force_error=[True, False]),
    "clean_string": op_config(hyperparams=[{}, {"depth": 3}]),
}
RUN_CONFIGS = st.fixed_dictionaries({}, optional={"ops": st.fixed_dictionaries({}, optional=OP_CONFIGS) | JSON})

QUERIES = [
    "{ version }",
    "{ runsOrError { ... on Runs { results { runId } } } }",
    '{ runOrError(runId: "x") { __typename } }',
    "mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }",
    'subscription { pipelineRunLogs(runId: "x") { __typename } }',
]

LISTENERS = ("dagit", "user_code", "postgres")

# Runs in Dagit's container, which reaches every listener.
SEND_GARBAGE = """
import os, socket
unix, tcp = socket.AF_UNIX, socket.AF_INET
for family, address in ((tcp, ("dagit", 3000)), (unix, "/run/user_code/grpc.sock"), (tcp, ("postgres", 5432))):
    for size in (0, 1, 8, 100, 5000, 200000):
        with socket.socket(family) as connection:
            connection.settimeout(5)
            connection.connect(address)
            try:
                connection.sendall(os.urandom(size))
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1000)
            except OSError:
                pass  # it may close the connection at any time
"""


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give these runs a directory for texts of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_PATH", str(tmp_path_factory.mktemp("data")))
        yield


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=RUN_CONFIGS)
def test_a_run_config_is_rejected_with_a_reason_or_does_what_it_says(config: dict[str, Any]) -> None:
    try:
        result = clean_string_job.execute_in_process(config, raise_on_error=False)
    except dg.DagsterInvalidConfigError as error:
        event("rejected")
        assert str(error).strip()  # noqa: PT017 - it may also be valid
    else:
        event("ran")
        asked_to_fail = config.get("ops", {}).get("normalize_string", {}).get("config", {}).get("force_error", False)
        assert result.success is not asked_to_fail


def post(deployment: Deployment, body: bytes) -> requests.Response:
    """Send a body to Dagit's GraphQL."""
    headers = {"Content-Type": "application/json"}
    return requests.post(f"{deployment.url}/graphql", body, headers=headers, timeout=30)


def test_dagit_rejects_a_broken_query_with_a_reason(deployment: Deployment) -> None:
    chance = random.Random(0)
    rejected = 0
    for _ in range(300):
        query = list(chance.choice(QUERIES))
        for _ in range(chance.randrange(1, 6)):
            query[chance.randrange(len(query))] = chance.choice('{}()[]"!$:@\\\0\ud7ff x0')
        body: dict[str, Any] = {"query": "".join(query), "variables": chance.choice([None, {}, {"p": {"x": []}}])}
        answer = post(deployment, json.dumps(body).encode())
        if answer.status_code != 200:  # it may still be a query
            assert answer.json()["errors"][0]["message"], body
            rejected += 1
    assert rejected > 250
    assert deployment.finish(deployment.launch()) == "SUCCESS"


@pytest.mark.parametrize("file", ["pickle", "json"])
def test_dagit_rejects_a_run_config_that_names_a_file(file: str, deployment: Deployment) -> None:
    launch = """
        mutation($of: JobOrPipelineSelector!, $config: RunConfigData!) {
            launchRun(executionParams: { selector: $of, runConfigData: $config }) {
                ... on RunConfigValidationInvalid { errors { message } }
            }
        }"""
    of = LOCATION | {"jobName": JOB, "solidSelection": ["clean_string"]}
    config = {"ops": {"clean_string": {"inputs": {"sent_norm": {file: {"path": "/data/x"}}}}}}
    (error,) = deployment.query(launch, of=of, config=config)["errors"]
    assert f'unexpected config entry "{file}"' in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff" * 1000,
        b'{"query": 1}',
        b'{"query": "{ version }", "variables": 1}',
        b"[" * 100_000,
        b'{"query": "' + b"{a" * 20_000 + b'"}',
    ],
    ids=["nothing", "half", "no text", "no query", "no variables", "deep JSON", "a deep query"],
)
def test_dagit_rejects_a_broken_request(body: bytes, deployment: Deployment) -> None:
    assert post(deployment, body).status_code >= 400  # with 500, Dagit says that it did not foresee this
    assert "version" in deployment.ask("{ version }")


def test_every_listener_survives_garbage(deployment: Deployment) -> None:
    started = {service: deployment.container(service).attrs["State"]["StartedAt"] for service in LISTENERS}
    deployment.run_in("dagit", "python", "-c", SEND_GARBAGE)
    assert deployment.finish(deployment.launch()) == "SUCCESS"
    for service in LISTENERS:
        assert deployment.container(service).attrs["State"]["StartedAt"] == started[service]
        assert deployment.health(service) == "healthy"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_CONCURRENT_RUNS", "many"),
        ("RUN_MEMORY", "2 GB"),
        ("RUN_CPU_PERCENT", "1.5"),
        ("RUN_PIDS", "0"),
        ("RUN_MEMORY_MAX", "2 GB"),
        ("RUN_CPU_PERCENT_MAX", "1.5"),
        ("RUN_PIDS_MAX", "0"),
        ("SENSOR_TIMEOUT", "1m"),
        ("RETENTION_DAYS", "-1"),
        ("DAGIT_PORT", "web"),
    ],
)
def test_a_broken_setting_is_named_with_the_fix(
    name: str, value: str, docker_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    said = subprocess.run(["deploy/commands/preflight"], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert name in said.stderr
    assert value in said.stderr
