"""deploy/postgres/roles.sql: Dagster's role is an ordinary one, on new volumes and on older ones."""

import secrets
import time
from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container

from tests.stack import Deployment

# What a superuser can do, or Dagster's role could from another database; each is refused.
REFUSED = {
    "run a program": "COPY (SELECT 1) TO PROGRAM 'id'",
    "read a program's output": "CREATE TEMP TABLE t (line text); COPY t FROM PROGRAM 'id'",
    "read a file": "SELECT pg_read_file('/secret/password')",
    "list a directory": "SELECT pg_ls_dir('/')",
    "write a file": "SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/x')",
    "load a library": "LOAD '/tmp/x.so'",
    "write a function in C": "CREATE FUNCTION f() RETURNS int AS '/tmp/x.so', 'f' LANGUAGE c",
    "connect to elsewhere": "CREATE EXTENSION dblink",
    "subscribe to elsewhere": "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p",
    "create a role": "CREATE ROLE other",
    "create a database": "CREATE DATABASE other",
    "become superuser": "ALTER ROLE dagster SUPERUSER",
    "lift its own limit": "ALTER ROLE dagster CONNECTION LIMIT -1",
    "give the superuser a password": "ALTER ROLE postgres PASSWORD 'guessed'",
    "act as the superuser": "SET ROLE postgres",
    "change the settings": "ALTER SYSTEM SET max_connections = 1",
    "write temporary files without limit": "SET temp_file_limit = -1",
}

# Tells which of the statements and connections given as arguments succeed.
TRY = """if True:
    import sys, psycopg2
    for statement in sys.argv[1:]:
        try:
            if statement.startswith("service="):
                psycopg2.connect(statement)
            else:
                connection = psycopg2.connect("service=dagster")
                connection.autocommit = True
                connection.cursor().execute(statement)
            print(statement)
        except psycopg2.Error as error:
            refused = error.pgcode == "42501" or "no pg_hba.conf entry" in str(error)
            assert refused, (statement, str(error))"""

# Takes every connection that Dagster's role can get, until five seconds after the first refusal.
EXHAUST = """if True:
    import math, time, psycopg2
    until, taken = math.inf, []
    while time.monotonic() < until:
        try:
            taken.append(psycopg2.connect("service=dagster"))
        except psycopg2.OperationalError:
            until = min(until, time.monotonic() + 5)
            time.sleep(0.02)"""

ROLES = """
    SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit,
           coalesce(left(rolpassword, 15), 'none')
    FROM pg_authid WHERE rolname NOT LIKE 'pg\\_%' ORDER BY 1"""
ORDINARY = "dagster|f|f|f|f|f|300|SCRAM-SHA-256$1\npostgres|t|t|t|t|t|-1|none"
PARTS = """
    SELECT 'database ' || pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'dagster'
    UNION SELECT 'relation ' || pg_get_userbyid(relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname IN ('public', 'extra') AND relkind <> 't'
    UNION SELECT 'function ' || pg_get_userbyid(proowner) FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
        WHERE nspname IN ('public', 'extra')
    UNION SELECT 'type ' || pg_get_userbyid(typowner) FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
        WHERE nspname IN ('public', 'extra')
    UNION SELECT 'schema ' || pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname IN ('extra')
    ORDER BY 1"""

# Some of everything that Dagster, or code with the password, may have made as the superuser `dagster`.
MADE_BEFORE = """
    CREATE TABLE runs (id bigserial PRIMARY KEY, body text DEFAULT 'x');
    INSERT INTO runs (body) SELECT md5(n::text) FROM generate_series(1, 1000) n;
    CREATE INDEX ON runs (body);
    CREATE TABLE identified (id int GENERATED ALWAYS AS IDENTITY, "Run" int) PARTITION BY RANGE (id);
    CREATE TABLE part PARTITION OF identified FOR VALUES FROM (1) TO (9);
    CREATE SEQUENCE alone START 41;
    SELECT nextval('alone');
    CREATE TYPE mood AS ENUM ('good');
    CREATE TYPE pair AS (a int, b int);
    CREATE DOMAIN digit AS int CHECK (VALUE < 10);
    CREATE VIEW latest AS SELECT max(id) FROM runs;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM runs;
    CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
    CREATE PROCEDURE nothing() LANGUAGE sql AS '';
    CREATE AGGREGATE total (int) (sfunc = int4pl, stype = int);
    CREATE SCHEMA extra;
    CREATE TABLE extra."odd ""name" (n int);
    CREATE SCHEMA trigrams;
    CREATE EXTENSION pg_trgm SCHEMA trigrams"""
HISTORY = "SELECT count(*) || ' ' || md5(string_agg(r::text, ',' ORDER BY id)) FROM runs r"


@pytest.mark.parametrize("place", ["user_code", "dagit"])
def test_dagsters_role_is_refused_what_a_superuser_can_do(place: str, neighbour: Deployment) -> None:
    others = ["service=dagster user=postgres", "service=dagster dbname=postgres", "service=dagster dbname=template1"]
    command = ("python", "-c", TRY, *REFUSED.values(), *others, "SELECT count(*) FROM runs")
    assert neighbour.run_in(place, *command).decode().splitlines() == ["SELECT count(*) FROM runs"]


def test_the_roles_are_as_the_catalog_says(neighbour: Deployment) -> None:
    assert neighbour.sql(ROLES) == ORDINARY
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert neighbour.sql(owners) == "dagster"


@pytest.mark.timeout(300)
def test_some_connections_are_left_for_the_superuser(neighbour: Deployment) -> None:
    neighbour.container("user_code").exec_run(["python", "-c", EXHAUST], detach=True)
    taken = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'dagster'"
    neighbour.wait_for("all connections to be taken", lambda: int(neighbour.sql(taken)), lambda count: count == 300)
    neighbour.wait_for("their end", lambda: int(neighbour.sql(taken)), lambda count: count < 100)
    neighbour.wait_until_healthy()


def test_a_query_ends_soon_after_its_client(neighbour: Deployment) -> None:
    loop = "DO $$ BEGIN LOOP END LOOP; END $$"
    query = f"import psycopg2; psycopg2.connect('service=dagster').cursor().execute('{loop}')"
    neighbour.container("user_code").exec_run(["timeout", "--signal=KILL", "3", "python", "-c", query])
    left = f"SELECT count(*) FROM pg_stat_activity WHERE query = '{loop}' AND pid <> pg_backend_pid()"
    neighbour.wait_for("its end", lambda: neighbour.sql(left), lambda count: count == "0", timeout=45)


class Volumes:
    """A data directory and a secret, and the Postgres containers started on them, one after the other."""

    def __init__(self) -> None:
        """Choose names."""
        self.engine = docker.from_env()
        self.name = f"dd-test-{secrets.token_hex(3)}"
        self.volumes = {f"{self.name}-data": "/var/lib/postgresql/data", f"{self.name}-secret": "/secret"}
        self.container: Container | None = None

    def start(self, image: str, environment: dict[str, str] | None = None) -> None:
        """Start a container instead of the one before, as docker-compose.yml does."""
        self.stop()
        self.container = self.engine.containers.run(
            image,
            name=self.name,
            detach=True,
            init=True,
            cap_drop=["ALL"],
            cap_add=["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"],
            security_opt=["no-new-privileges:true"],
            read_only=True,
            tmpfs={"/tmp": "", "/var/run/postgresql": ""},
            network_mode="none",
            volumes={name: {"bind": path, "mode": "rw"} for name, path in self.volumes.items()},
            environment=environment,
        )

    def stop(self, *, kill: bool = False) -> None:
        """Stop and remove the container, if there is one; the volumes stay."""
        if self.container:
            self.container.kill() if kill else self.container.stop(timeout=30)
            self.container.remove(v=True)
            self.container = None

    def run(self, *command: str) -> str:
        """Return what a command prints in the container. AssertionError if it fails."""
        assert self.container
        exit_code, output = self.container.exec_run(list(command))
        assert exit_code == 0, output
        assert isinstance(output, bytes)
        return output.decode().strip()

    def sql(self, user: str, query: str, database: str = "dagster") -> str:
        """Return the database's answer."""
        options = ("--quiet", "--set=ON_ERROR_STOP=1", "--no-align", "--tuples-only")
        return self.run("psql", f"--username={user}", f"--dbname={database}", *options, f"--command={query}")

    def wait(self) -> None:
        """Wait until it accepts connections over TCP. TimeoutError with its log if it does not."""
        assert self.container
        deadline = time.monotonic() + 60
        ready = ["pg_isready", "--host=127.0.0.1", "--username=dagster"]
        while self.container.exec_run(ready).exit_code != 0:
            if time.monotonic() > deadline:
                raise TimeoutError(self.container.logs().decode())
            time.sleep(0.1)

    def remove(self) -> None:
        """Remove all of it."""
        if self.container:
            self.container.remove(force=True, v=True)
        for name in self.volumes:
            self.engine.volumes.get(name).remove()


@pytest.fixture
def volumes(docker_engine: None) -> Iterator[Volumes]:
    """Yield volumes on which nothing is yet."""
    volumes = Volumes()
    try:
        yield volumes
    finally:
        volumes.remove()


def test_a_volume_whose_superuser_is_called_dagster_is_brought_over(volumes: Volumes, neighbour: Deployment) -> None:
    image = f"{neighbour.project}-postgres"
    old = {"POSTGRES_USER": "dagster", "POSTGRES_DB": "dagster", "POSTGRES_PASSWORD": "old"}
    volumes.start("postgres:17", old | {"POSTGRES_INITDB_ARGS": "--set=scram_iterations=1"})
    volumes.run("sh", "-c", "echo -n old >/secret/password")
    volumes.wait()
    volumes.sql("dagster", MADE_BEFORE)
    history = volumes.sql("dagster", HISTORY)
    dump = "/var/lib/postgresql/data/old.dump"
    volumes.run("pg_dump", "--username=dagster", "--format=custom", f"--file={dump}")
    volumes.stop(kill=True)  # so that it has to be recovered first

    for seconds in (0.05, 0.1, 0.2, 0.4, 0.6):
        volumes.start(image)
        time.sleep(seconds)
        volumes.stop(kill=True)

    for _ in range(2):
        volumes.start(image)
        volumes.wait()
        assert volumes.sql("postgres", ROLES) == ORDINARY
        owners = volumes.sql("postgres", PARTS).splitlines()
        assert owners == [f"{part} dagster" for part in ("database", "function", "relation", "schema", "type")]
        assert volumes.sql("dagster", HISTORY) == history
        assert int(volumes.sql("dagster", "SELECT nextval('alone')")) > 41
        login = "host=127.0.0.1 user=dagster dbname=dagster password=old"
        assert volumes.run("psql", login, "--no-align", "--tuples-only", "--command=SELECT 1") == "1"
    volumes.sql("dagster", "INSERT INTO runs (body) VALUES ('new'); ALTER TABLE runs ADD COLUMN more int")

    # A backup made before is restored as Dagster's role, as `make restore` does.
    volumes.sql("postgres", "CREATE DATABASE restored OWNER dagster")
    to = ("--username=dagster", "--dbname=restored", "--no-owner", "--single-transaction")
    volumes.run("pg_restore", *to, dump)
    assert volumes.sql("dagster", HISTORY, "restored") == history


def test_a_new_password_is_given_to_the_role(volumes: Volumes, neighbour: Deployment) -> None:
    image = f"{neighbour.project}-postgres"
    login = ["sh", "-c", 'psql "host=127.0.0.1 user=dagster password=$(cat /secret/password)" --command="SELECT 1"']
    volumes.start(image)
    volumes.wait()
    volumes.run(*login)
    first = volumes.run("cat", "/secret/password")
    volumes.run("rm", "/secret/password")
    volumes.start(image)
    volumes.wait()
    volumes.run(*login)
    assert volumes.run("cat", "/secret/password") != first
