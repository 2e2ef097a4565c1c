"""deploy/postgres/answers: a Postgres that recovers is unhealthy, and never killed for it."""

import pytest

from tests.stack import Deployment

# Kills a backend after it wrote a lot; holds the recovery that follows; prints what four checks say meanwhile.
RECOVER = """
psql() { command psql --username=dagster --quiet --no-align --tuples-only --command="$1"; }
psql "CREATE TABLE load (n int)"
psql "INSERT INTO load SELECT generate_series(1, 300000); SELECT pg_sleep(60)" &
backend="SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
until [ -n "$(psql "$backend")" ]; do sleep 0.1; done
kill -KILL "$(psql "$backend")"
until startup=$(grep -ls '^postgres: startup' /proc/[0-9]*/cmdline | cut -d / -f 3) && [ -n "$startup" ]; do :; done
kill -STOP $startup
for _ in 1 2 3 4; do
  check 0 answers
  echo "check: $?"
done
kill -CONT $startup
"""


@pytest.mark.timeout(300)
def test_a_postgres_that_recovers_is_unhealthy_and_not_killed(neighbour: Deployment) -> None:
    restarts = neighbour.container("postgres").attrs["RestartCount"]
    said = neighbour.run_in("postgres", "bash", "-c", RECOVER).decode()
    assert said.count("check: 1") == 4, said
    assert said.count("rejecting connections") >= 4, said
    neighbour.wait_until_healthy()
    assert neighbour.container("postgres").attrs["RestartCount"] == restarts
    neighbour.sql("DROP TABLE load")


def test_a_postgres_that_does_not_listen_is_told_from_one_that_recovers(neighbour: Deployment) -> None:
    nobody = "sed 's/--host=127.0.0.1/& --port=1/' $(command -v answers) | sh; echo $?"
    assert neighbour.run_in("postgres", "sh", "-c", nobody).decode().splitlines()[-1] == "2"
