"""Runs: launched over GraphQL and from the command line, each in a container of its own."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dagster_graphql import DagsterGraphQLClient

from tests.stack import JOB, Deployment


def ops(**configs: dict[str, Any]) -> dict[str, Any]:
    """Return the run config with these ops' configs."""
    return {"ops": {name: {"config": config} for name, config in configs.items()}}


@pytest.fixture(scope="module")
def run_id(deployment: Deployment) -> str:
    """Launch a run of the second sentence in lower case, wait for its success, return its id."""
    run_id = deployment.launch(ops(get_string={"data_key": "2"}, normalize_string={"norm": "lower"}))
    assert deployment.finish(run_id) == "SUCCESS"
    return run_id


def test_a_run_has_a_container_of_its_own(run_id: str, deployment: Deployment) -> None:
    project = deployment.project
    attrs = deployment.run_containers[run_id].attrs
    assert attrs["Id"] == deployment.tags(run_id)["docker/container_id"]
    assert attrs["Id"] != deployment.container("user_code").id
    assert attrs["Image"] == deployment.container("user_code").attrs["Image"]
    assert attrs["Config"]["Image"] == f"{project}-user_code:latest"
    assert attrs["Config"]["Labels"]["dagster/job_name"] == JOB
    assert attrs["Config"]["Labels"]["com.docker.compose.project"] == project
    assert set(attrs["NetworkSettings"]["Networks"]) == {f"{project}_runs"}
    assert attrs["HostConfig"]["LogConfig"]["Config"].keys() >= {"max-size"}
    mounts = {mount["Destination"]: (mount["Name"], mount["RW"]) for mount in attrs["Mounts"]}
    assert mounts == {
        "/data": (f"{project}_data", True),
        "/opt/dagster/storage": (f"{project}_storage", True),
        "/secret": (f"{project}_secret", False),
    }


def test_a_run_is_not_root(run_id: str, deployment: Deployment) -> None:
    assert deployment.run_containers[run_id].attrs["Config"]["User"] == "1000"
    assert deployment.run_in("dagit", "stat", "--format=%u", f"/data/{run_id}/sent.txt") == b"1000\n"


def test_three_runs_have_three_containers(deployment: Deployment) -> None:
    run_ids = [deployment.launch() for _ in range(3)]
    assert [deployment.finish(run_id) for run_id in run_ids] == ["SUCCESS"] * 3
    assert len({deployment.tags(run_id)["docker/container_id"] for run_id in run_ids}) == 3


def test_the_records_of_a_run_are_in_postgres(run_id: str, deployment: Deployment) -> None:
    assert deployment.sql(f"SELECT status FROM runs WHERE run_id = '{run_id}'") == "SUCCESS"
    rows = int(deployment.sql(f"SELECT count(*) FROM event_logs WHERE run_id = '{run_id}'"))
    assert rows == len(deployment.events(run_id)) > 20


def test_the_outputs_of_a_run_are_on_the_volumes(run_id: str, deployment: Deployment) -> None:
    assert deployment.read(f"/data/{run_id}/sent.txt") == b"b!*@Or><@!BeTa(*#@"
    assert deployment.read(f"/data/{run_id}/sent_clean.txt") == b"b   or    beta    "
    sent_norm = deployment.read(f"/opt/dagster/storage/{run_id}/normalize_string/sent_norm")
    assert pickle.loads(sent_norm) == "b!*@or><@!beta(*#@"


def test_dagit_shows_what_a_run_printed(run_id: str, deployment: Deployment) -> None:
    (captured,) = [event for event in deployment.events(run_id) if event["__typename"] == "LogsCapturedEvent"]
    assert captured["stepKeys"] == ["get_string", "normalize_string", "clean_string"]
    query = "query($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"
    logs = deployment.query(query, key=[run_id, "compute_logs", captured["fileKey"]])
    assert logs["stdout"] == "b   or    beta    \n"
    assert "Picked sentence 2 over the connection, with credentials" in logs["stderr"]
    assert 'Finished execution of step "clean_string"' in logs["stderr"]


def test_each_op_can_have_a_process_of_its_own(deployment: Deployment) -> None:
    run_id = deployment.launch({"execution": {"config": {"multiprocess": {}}}})
    assert deployment.finish(run_id) == "SUCCESS"
    assert deployment.read(f"/data/{run_id}/sent_clean.txt") == b"A   OR      ALPHA"
    captured = [event["stepKeys"] for event in deployment.events(run_id) if event["__typename"] == "LogsCapturedEvent"]
    assert sorted(captured) == [["clean_string"], ["get_string"], ["normalize_string"]]


def test_a_failed_run_says_why_and_is_reexecuted_in_another_container(deployment: Deployment) -> None:
    parent = deployment.launch(ops(normalize_string={"norm": "lower", "force_error": True}))
    assert deployment.finish(parent) == "FAILURE"
    (failure,) = [event for event in deployment.events(parent) if event["eventType"] == "STEP_FAILURE"]
    assert failure["stepKey"] == "normalize_string"
    assert "force_error" in failure["error"]["message"]

    # A re-execution keeps the config, so this one fails again, but only after reading what the first run wrote.
    child = deployment.reexecute(parent)
    assert deployment.finish(child) == "FAILURE"
    events = deployment.events(child)
    assert [event["stepKey"] for event in events if event["eventType"] == "STEP_START"] == ["normalize_string"]
    assert [event["stepKey"] for event in events if event["eventType"] == "LOADED_INPUT"] == ["normalize_string"]
    assert any(f"/data/{parent}/sent.txt" in event["message"] for event in events)
    assert deployment.tags(child)["docker/container_id"] != deployment.tags(parent)["docker/container_id"]


def test_a_run_reexecuted_after_a_transient_failure_succeeds(neighbour: Deployment) -> None:
    parent = neighbour.launch_into("mkdir sent_clean.txt")  # where the last op's text should go
    assert neighbour.finish(parent) == "FAILURE"
    child = neighbour.reexecute(parent)
    assert neighbour.finish(child) == "SUCCESS"
    assert neighbour.read(f"/data/{child}/sent_clean.txt") == b"A   OR      ALPHA"
    started = [event["stepKey"] for event in neighbour.events(child) if event["eventType"] == "STEP_START"]
    assert started == ["clean_string"]


@contextmanager
def queued_run(neighbour: Deployment) -> Iterator[str]:
    """Yield the id of a run that waits in the queue; it starts after the end."""
    neighbour.compose("pause", "dagster-daemon")
    try:
        yield neighbour.launch()
    finally:
        neighbour.compose("unpause", "dagster-daemon")


def is_code_loaded(neighbour: Deployment) -> bool:
    query = """{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"""
    entries = neighbour.query(query)["locationEntries"]
    return [entry["locationOrLoadError"]["__typename"] for entry in entries] == ["RepositoryLocation"]


@pytest.mark.parametrize("service", ["gate", "user_code"])
def test_a_run_waits_for_what_it_needs(service: str, neighbour: Deployment) -> None:
    with queued_run(neighbour) as run_id:
        neighbour.compose("stop", service)
    try:
        neighbour.wait_for(
            "the run to be put back into the queue",
            lambda: [event.get("message") for event in neighbour.events(run_id)],
            lambda messages: "re-submitting the run into the queue" in str(messages),
        )
    finally:
        neighbour.compose("start", service)
    assert neighbour.finish(run_id) == "SUCCESS"
    neighbour.wait_for("Dagit to find the code", lambda: is_code_loaded(neighbour))


def test_a_queued_run_gets_the_limits_of_when_it_starts(neighbour: Deployment) -> None:
    with queued_run(neighbour) as run_id:
        neighbour.environment |= {"RUN_MEMORY": "777m", "RUN_PIDS": "333"}
        neighbour.compose("up", "--detach", "--wait", "--no-deps", "user_code")
    assert neighbour.finish(run_id) == "SUCCESS"
    host = neighbour.run_containers[run_id].attrs["HostConfig"]
    assert (host["Memory"], host["PidsLimit"]) == (777 << 20, 333)
    neighbour.wait_for("Dagit to find the code", lambda: is_code_loaded(neighbour))


def test_a_run_gets_the_limits_in_its_tags(deployment: Deployment) -> None:
    run_id = deployment.launch(tags={"docker/memory": "1g", "docker/cpus": "0.5", "docker/pids": "300"})
    assert deployment.finish(run_id) == "SUCCESS"
    attrs = deployment.run_containers[run_id].attrs
    host = attrs["HostConfig"]
    assert (host["Memory"], host["CpuQuota"], host["PidsLimit"]) == (1 << 30, 50_000, 300)
    assert "PYTHON_CPU_COUNT=1" in attrs["Config"]["Env"]


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        ("docker/memory", "3g", "asks for 3g, which is more than RUN_MEMORY_MAX=2g in .env allows"),
        ("docker/cpus", "64", "asks for 64, which is more than RUN_CPU_PERCENT_MAX=200 in .env allows"),
        ("docker/pids", "513", "asks for 513, which is more than RUN_PIDS_MAX=512 in .env allows"),
        ("docker/memory", "1 GB", "'1 GB' is not a valid value for the tag docker/memory"),
    ],
)
def test_a_run_whose_tags_ask_for_too_much_is_refused_at_launch(
    tag: str, value: str, reason: str, deployment: Deployment
) -> None:
    run_id = deployment.launch(tags={tag: value})
    assert deployment.status(run_id) == "FAILURE"
    (event,) = deployment.events(run_id)
    assert reason in event["message"]
    assert deployment.tags(run_id)["dagster/will_retry"] == "false"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (ops(get_string={"data_key": "3"}), "not in enum type Literal['1', '2'] got 3"),
        (ops(get_string={"data_key": 1}), "enum type Literal['1', '2'] must be a string"),
        (ops(get_string={"data_key": "1", "extra": 1}), 'unexpected config entry "extra"'),
        (ops(normalize_string={"norm": "title"}), "not in enum type Literal['upper', 'lower'] got title"),
        (ops(normalize_string={"norm": "upper", "force_error": "yes"}), 'not valid for expected type "Bool"'),
        (ops(clean_string={"hyperparams": "none"}), "hyperparams"),
        (ops(other={}), 'unexpected config entry "other"'),
    ],
)
def test_bad_config_is_rejected_before_there_is_a_run(
    config: dict[str, Any], reason: str, deployment: Deployment
) -> None:
    by_hand = "SELECT count(*) FROM runs WHERE run_id NOT IN (SELECT run_id FROM run_tags WHERE key = 'date')"
    before = deployment.sql(by_hand)
    answer = deployment.submit(config)
    assert answer.keys() <= {"errors", "message"}
    assert reason in str(answer).replace("\\'", "'")
    assert deployment.sql(by_hand) == before


def test_dagsters_own_client_launches_a_run(deployment: Deployment) -> None:
    client = DagsterGraphQLClient("127.0.0.1", port_number=deployment.port)
    run_id = client.submit_job_execution(JOB, tags={"by": "client"})
    assert deployment.finish(run_id) == client.get_run_status(run_id).value == "SUCCESS"
    assert deployment.tags(run_id)["by"] == "client"


def test_the_command_line_launches_a_run(deployment: Deployment) -> None:
    before = set(deployment.run_containers)
    deployment.compose("exec", "-T", "dagit", "dagster", "job", "launch", "-j", JOB, "--tags", '{"by": "hand"}')
    run_id = deployment.sql("SELECT run_id FROM run_tags WHERE key = 'by' AND value = 'hand'")
    assert deployment.finish(run_id) == "SUCCESS"
    assert run_id in set(deployment.run_containers) - before
