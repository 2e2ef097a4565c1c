"""The Makefile's targets that need no Docker, in a new checkout."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import copy_checkout

CODE = """
from pathlib import Path

import dagster as dg

@dg.asset
def numbers(): return [1, 2]

@dg.op
def write(context):
    print("printed")
    Path(f"data/{context.run_id}.txt").write_text("written")

@dg.job
def first(): write()

@dg.job
def second(): write()

@dg.schedule(job=first, cron_schedule="* * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def every_minute(): return {}

"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that a clone would have, with code of one's own in pipeline/."""
    directory = tmp_path_factory.mktemp("checkout")
    copy_checkout(directory)
    shutil.rmtree(directory / "pipeline")
    (directory / "pipeline").mkdir()
    (directory / "pipeline/__init__.py").write_text(
        CODE + "defs = dg.Definitions(jobs=[first], schedules=[every_minute])"
    )
    return directory


def make(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell, even where make runs the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def dagit(checkout: Path) -> Iterator[str]:
    """Yield the address of a Dagit that `make dev` serves."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # A shell ignores Ctrl-C for what it starts in the background, and so would all that is started from there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        ["make", "dev"], cwd=checkout, env={**os.environ, "DAGIT_PORT": str(port)}, start_new_session=True
    )
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    try:
        process.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def successful_runs(address: str) -> list[str]:
    """Return the run ids that Dagit lists as succeeded; none while it does not answer yet."""
    query = {"query": "{ runsOrError(filter: {statuses: [SUCCESS]}) { ... on Runs { results { runId } } } }"}
    request = urllib.request.Request(
        f"{address}/graphql", json.dumps(query).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return [run["runId"] for run in json.load(answer)["data"]["runsOrError"]["results"]]
    except OSError:
        return []


def test_help_lists_every_target() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", Path("Makefile").read_text(), re.MULTILINE)
    assert [line.split()[0] for line in make().stdout.splitlines()] == targets.split()


def test_local_sets_itself_up_and_runs_the_job(checkout: Path) -> None:
    done = make("local", cwd=checkout)
    assert done.returncode == 0, done.stderr
    (text,) = checkout.glob("data/*.txt")
    assert f"\ndata/{text.name}: written\n" in done.stdout
    for path in (f"data/{text.name}", f"local/storage/{text.stem}/compute_logs/", f"local/history/runs/{text.stem}.db"):
        assert f"\n{path}" in done.stdout


@pytest.fixture
def other(checkout: Path, tmp_path: Path) -> Path:
    """Return a copy of that which has the packages installed."""
    other = tmp_path / "with a space"
    shutil.copytree(checkout, other, ignore=shutil.ignore_patterns(".venv"))
    (other / ".venv").symlink_to(sys.prefix)
    return other


@pytest.mark.parametrize(
    ("jobs", "job", "says"),
    [
        ("[]", "", "Materialized value numbers."),
        (
            "[first, second]",
            "",
            "Your code has several jobs; name one, such as make local JOB=first. It has: first second",
        ),
        ("[first, second]", "second", 'Finished execution of run for "second"'),
    ],
)
def test_local_runs_what_there_is(jobs: str, job: str, says: str, other: Path) -> None:
    (other / "pipeline/__init__.py").write_text(f"{CODE}defs = dg.Definitions(assets=[numbers], jobs={jobs})")
    done = make("-o", ".venv/installed", "local", f"JOB={job}", cwd=other)
    assert says in done.stderr
    assert (done.returncode == 0) == ("several" not in says)
    assert "supersede" not in done.stderr
    assert "virtual environment" not in done.stderr


def test_dev_listens_where_dotenv_says(other: Path) -> None:
    def command(*variables: str) -> str:
        return make("-n", "-o", ".venv/installed", "dev", *variables, cwd=other).stdout

    assert "dg dev --no-check-yaml --port 3000\n" in command()
    (other / ".env").write_text('# DAGIT_PORT=1\nRUN_PIDS=2\nDAGIT_PORT="3123" # mine\n')
    assert "dg dev --no-check-yaml --port 3123\n" in command()
    assert "dg dev --no-check-yaml --port 3124\n" in command("DAGIT_PORT=3124")


def test_lock_adds_and_update_upgrades(other: Path) -> None:
    (other / ".venv").unlink()
    (other / ".venv/bin").mkdir(parents=True)
    uv = other / ".venv/bin/uv"
    uv.write_text("""#!/bin/sh
echo "$@" >>uv
until [ "$1" = --output-file ]; do shift; done
echo new==1 >>"$2"
""")
    uv.chmod(0o755)
    locked = (other / "requirements/gate.txt").read_text()
    for target, upgrades in {"lock": False, "update": True}.items():
        done = make("-o", ".venv/installed", target, cwd=other)
        assert (done.returncode, done.stdout) == (0, "> new==1\n")
        calls = (other / "uv").read_text().splitlines()
        assert len(calls) == 4
        assert all(call.endswith(" --upgrade") == upgrades for call in calls)
        (other / "uv").unlink()
    assert (other / "requirements/gate.txt").read_text() == locked + "new==1\n" * 2


def test_a_conflict_reads_as_a_sentence_and_locks_nothing(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = (other / "pyproject.toml").read_text()
    conflict = 'user_code = [\n    "six<1",\n    "six>1",'
    (other / "pyproject.toml").write_text(project.replace("user_code = [", conflict, 1))
    monkeypatch.setenv("UV_OFFLINE", "1")
    before = {path: path.read_text() for path in (other / "requirements").iterdir()}
    done = make("-o", ".venv/installed", "lock", cwd=other)
    assert done.returncode != 0
    assert (
        "Because you require six<1 and six>1, we can conclude that your requirements are unsatisfiable." in done.stderr
    )
    assert "Nothing was locked: uv found no versions for the group 'dev' of pyproject.toml" in done.stderr
    assert {path: path.read_text() for path in (other / "requirements").iterdir()} == before


def test_dev_serves_dagit_and_runs_the_schedule(checkout: Path, dagit: str) -> None:
    deadline = time.monotonic() + 150
    while not (runs := successful_runs(dagit)):
        assert time.monotonic() < deadline, f"no run of the schedule succeeded within 150 s on {dagit}"
        time.sleep(1)
    assert (checkout / f"data/{runs[0]}.txt").exists()


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    shutil.copy("Makefile", tmp_path)
    shutil.copytree("requirements", tmp_path / "requirements")
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\nexec python3 -c "import sys; sys.version_info = (3, 10); exec(sys.argv[1])" "$2"\n')
    old.chmod(0o755)
    tried = make("local", f"PYTHON={old}", cwd=tmp_path)
    assert tried.returncode != 0
    assert "Python 3.11 or newer is needed" in tried.stderr
    assert not (tmp_path / ".venv").exists()
