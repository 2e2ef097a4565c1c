"""The storage: connections are pooled and replaced when they broke; the end of a run shows only once it is recorded."""

import pytest

from tests.stack import Deployment

# In the environment of the service: uses ten storages, counts their pooled connections, breaks those, uses them again.
USE_BREAK_USE = """
import os, psycopg2
service = open("/proc/1/task/1/children").read().split()[0]
os.environ.update(pair.split("=", 1) for pair in open(f"/proc/{service}/environ").read().split("\\0") if pair)
from deployable_dagster import storage
os.environ["PGAPPNAME"] = "pooled"
config = {"postgres_url": "postgresql+psycopg2://?service=dagster&plugin=pooled"}
storages = [storage.PostgresStorage.from_config_value(None, config) for _ in range(10)]
for each in storages:
    each.run_storage.get_runs(limit=1)
with psycopg2.connect(service="dagster", application_name="counts").cursor() as cursor:
    pooled = "FROM pg_stat_activity WHERE application_name = 'pooled'"
    cursor.execute(f"SELECT count(*) {pooled}")
    print(cursor.fetchone()[0])
    cursor.execute(f"SELECT pg_terminate_backend(pid, 5000) {pooled}")
for each in storages:
    each.run_storage.get_runs(limit=1)
"""


# A code server makes a storage for each tick, and never closes one.
@pytest.mark.parametrize(("service", "pooled"), [("dagster-daemon", 30), ("user_code", 0)])
def test_a_pooled_connection_that_broke_is_replaced(deployment: Deployment, service: str, pooled: int) -> None:
    assert int(deployment.run_in(service, "python", "-c", USE_BREAK_USE)) == pooled


def test_a_run_connects_a_few_times_and_not_for_each_of_its_events(deployment: Deployment) -> None:
    def sessions() -> int:
        return int(deployment.sql("SELECT sessions FROM pg_stat_database WHERE datname = current_database()"))

    before = sessions()
    run_id = deployment.launch()
    assert deployment.finish(run_id) == "SUCCESS"
    events = len(deployment.events(run_id))
    assert sessions() - before < events, "of all services and runs meanwhile"


# Prints how many ends of runs the daemon's retries are shown: an hour ago, and in an hour.
SHOWN = """
import time, dagster as dg
now = time.time()
with dg.DagsterInstance.get() as instance:
    read = instance.event_log_storage.get_logs_for_all_runs_by_log_id
    for moment in (now - 3600, now + 3600):
        time.time = lambda: moment
        print(len(read(after_cursor=-1, dagster_event_type={dg.DagsterEventType.RUN_SUCCESS}, limit=1)))
"""


def test_the_end_of_a_run_is_hidden_from_retries_until_it_is_recorded(deployment: Deployment) -> None:
    assert deployment.finish(deployment.launch()) == "SUCCESS"
    assert deployment.run_in("dagster-daemon", "python", "-c", SHOWN).decode().split() == ["0", "1"]
