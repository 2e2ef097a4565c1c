"""What an operator does: two stacks side by side, down and up, stop and start."""

import pytest

from tests.stack import ENDED, SERVICES, Deployment


def history(deployment: Deployment) -> list[str]:
    """Return every ended run with its status and the number of its events; engine events may follow the end."""
    query = """
        SELECT run_id, status, count(*) FROM runs JOIN event_logs USING (run_id)
        WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED') AND dagster_event_type IS DISTINCT FROM 'ENGINE_EVENT'
        GROUP BY run_id, status ORDER BY run_id"""
    return deployment.sql(query).splitlines()


def test_two_copies_run_side_by_side(deployment: Deployment, neighbour: Deployment) -> None:
    run_id = neighbour.launch()
    assert neighbour.finish(run_id) == "SUCCESS"
    attrs = neighbour.run_containers[run_id].attrs
    assert set(attrs["NetworkSettings"]["Networks"]) == {f"{neighbour.project}_runs"}
    assert {mount["Name"].split("_")[0] for mount in attrs["Mounts"]} == {neighbour.project}
    assert deployment.sql(f"SELECT count(*) FROM runs WHERE run_id = '{run_id}'") == "0"
    assert run_id not in deployment.run_in("dagit", "ls", "/data", "/opt/dagster/storage").decode()


def test_all_healthchecks_together_use_less_than_2_percent_of_a_core(neighbour: Deployment) -> None:
    share = {}
    for service in sorted(SERVICES):
        healthcheck = neighbour.container(service).attrs["Config"]["Healthcheck"]
        program, seconds_between, *command = healthcheck["Test"][1:]
        assert program == "check"
        pause = healthcheck["Interval"] / 1e9 + float(seconds_between)
        ten_times = 'for i in 0 1 2 3 4 5 6 7 8 9; do check 0 "$@"; done >/dev/null; times'
        # The second line that `times` prints is what the children used, user and system: 0m0.31s 0m0.12s.
        children = neighbour.run_in(service, "sh", "-c", ten_times, "sh", *command).decode().splitlines()[1].split()
        seconds = sum(60 * float(time.split("m")[0]) + float(time.split("m")[1].rstrip("s")) for time in children) / 10
        assert seconds > 0
        share[service] = seconds / pause
    assert sum(share.values()) < 0.02, share


@pytest.mark.timeout(300)
def test_down_stops_runs_in_progress_and_up_finds_all_history(neighbour: Deployment) -> None:
    ended = neighbour.launch()
    assert neighbour.finish(ended) == "SUCCESS"
    in_flight = neighbour.hang()
    before = history(neighbour)
    password = neighbour.run_in("postgres", "cat", "/secret/password")

    neighbour.compose("down", "--remove-orphans")
    assert neighbour.containers() == []
    assert neighbour.engine.networks.list(filters={"label": neighbour.label}) == []

    neighbour.up()
    assert neighbour.run_in("postgres", "cat", "/secret/password") == password
    assert set(before) <= set(history(neighbour))
    assert neighbour.read(f"/data/{ended}/sent_clean.txt") == b"A   OR      ALPHA"
    assert neighbour.finish(in_flight) in ENDED - {"SUCCESS"}


@pytest.mark.timeout(300)
def test_a_stop_is_clean_and_a_start_finds_all_history(neighbour: Deployment) -> None:
    before = history(neighbour)
    assert before
    neighbour.compose("stop")
    codes = {service: neighbour.container(service).attrs["State"]["ExitCode"] for service in SERVICES}
    assert codes == dict.fromkeys(SERVICES, 0)
    neighbour.compose("start")
    neighbour.wait_until_healthy()
    assert set(before) <= set(history(neighbour))
    assert neighbour.finish(neighbour.launch()) == "SUCCESS"
