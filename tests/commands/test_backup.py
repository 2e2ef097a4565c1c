"""`make backup` and `make restore`: the same on another project, as on another machine; and what is refused."""

import hashlib
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest

from tests.commands.conftest import Checkout

FILES = {"manifest", "postgres.dump", "secret.tar.gz", "data.tar.gz", "storage.tar.gz"}


@pytest.fixture(scope="module")
def other(checkout: Checkout) -> Iterator[Checkout]:
    """Yield a project that has nothing yet, in the same directory."""
    other = Checkout(checkout.directory)
    try:
        yield other
    finally:
        other.remove()


def lacking(deployment: Checkout) -> list[str]:
    """Return the successful runs without their texts or what they printed."""
    successful = deployment.sql("SELECT run_id FROM runs WHERE status = 'SUCCESS'").splitlines()
    assert successful
    texts, printed = (deployment.in_volume(volume, "find . -type f") for volume in ("data", "storage"))
    return [
        run_id
        for run_id in successful
        if f"./{run_id}/sent_clean.txt" not in texts or f"./{run_id}/compute_logs/" not in printed
    ]


@pytest.mark.timeout(900)
def test_a_round_trip(checkout: Checkout, other: Checkout) -> None:
    # While runs go on:
    runs = [checkout.launch() for _ in range(6)]
    checkout.wait_for("a success", lambda: checkout.status(runs[0]), lambda status: status == "SUCCESS")
    busy = checkout.backup()
    other.make("restore", f"BACKUP={busy}")
    assert lacking(other) == []
    assert set(other.sql("SELECT run_id FROM runs").splitlines()) >= set(runs)
    # Those in flight then are failed now, and the schedule goes on.
    other.wait_for("the end of those", other.unfinished, lambda left: not set(runs) & set(left), timeout=260)
    assert {other.status(run_id) for run_id in runs} <= {"SUCCESS", "FAILURE"}
    query = "SELECT max(value) FROM run_tags WHERE key = 'date'"
    latest = other.sql(query)
    other.wait_for("the schedule's next run", lambda: other.sql(query), lambda date: date > latest, timeout=90)
    assert other.finish(other.launch()) == "SUCCESS"

    # While nothing goes on, all is the same to the last row and byte, over what was there before.
    checkout.switch_schedules_off()
    records, files = checkout.records(), checkout.files()
    quiet = checkout.backup()
    assert {path.name for path in (checkout.directory / quiet).iterdir()} == FILES | {"SHA256SUMS"}
    assert {path.stat().st_mode & 0o777 for path in (checkout.directory / quiet).iterdir()} == {0o600}
    other.make("restore", f"BACKUP={quiet}", "YES=1")
    assert other.files() == files
    assert other.records() == records
    assert int(records["event_logs"].split()[0]) > 100


def test_a_killed_backup_leaves_nothing_like_one(checkout: Checkout) -> None:
    checkout.in_volume("data", "head -c 300M /dev/urandom >large")
    before = sorted((checkout.directory / "backups").glob("[!.]*"))
    process = subprocess.Popen(
        ["deploy/commands/backup"],
        cwd=checkout.directory,
        env=os.environ | checkout.environment,
        start_new_session=True,
    )
    checkout.wait_for(
        "half a backup", lambda: list((checkout.directory / "backups").glob(".unfinished.*/data.tar.gz")), bool
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    of_postgres = checkout.engine.containers.list(all=True, filters={"ancestor": f"{checkout.project}-postgres"})
    for container in of_postgres:
        if "com.docker.compose.service" not in container.labels:  # the one that read the volume, or was about to
            with suppress(docker.errors.APIError):  # it has just ended, and removes itself
                container.remove(force=True)
    checkout.in_volume("data", "rm large")
    assert sorted((checkout.directory / "backups").glob("[!.]*")) == before
    assert (checkout.directory / checkout.backup() / "SHA256SUMS").exists()


def test_a_sparse_file_stays_sparse(checkout: Checkout, tmp_path: Path) -> None:
    checkout.in_volume("data", "truncate --size=200G sparse")
    try:
        began = time.monotonic()
        archive = checkout.directory / checkout.backup() / "data.tar.gz"
        assert time.monotonic() - began < 60
    finally:
        checkout.in_volume("data", "rm sparse")
    subprocess.run(["tar", "--extract", "--gzip", f"--directory={tmp_path}", f"--file={archive}"], check=True)
    restored = (tmp_path / "sparse").stat()
    assert (restored.st_size, restored.st_blocks) == (200 << 30, 0)


def test_a_backup_for_which_there_is_no_room_is_not_begun(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "df").write_text("#!/bin/sh\necho header; echo disk 100 99 1 99% /\n")
    (tmp_path / "df").chmod(0o755)
    before = sorted((checkout.directory / "backups").glob("*"))
    refused = checkout.try_("backup", f"PATH={tmp_path}:{os.environ['PATH']}")
    assert refused.returncode != 0
    assert "Refused: the backup may need" in refused.stdout
    assert sorted((checkout.directory / "backups").glob("*")) == before


def test_without_a_stack_there_is_no_backup(docker_engine: None, tmp_path: Path) -> None:
    refused = Checkout(tmp_path).try_("backup")
    assert refused.returncode != 0
    assert "is not running: start it with make up" in refused.stdout
    assert not (tmp_path / "backups").exists()


def services(checkout: Checkout) -> dict[str, str]:
    """Return when each service's container was started."""
    containers = checkout.containers("com.docker.compose.oneoff=False")
    return {str(container.id): container.attrs["State"]["StartedAt"] for container in containers}


def damage(backup: Path) -> None:
    content = bytearray((backup / "data.tar.gz").read_bytes())
    content[len(content) // 2] ^= 1
    (backup / "data.tar.gz").write_bytes(content)


def newer(backup: Path, old: str, new: str) -> None:
    """Change the manifest, with its checksum."""
    manifest = (backup / "manifest").read_text()
    assert old in manifest
    changed = manifest.replace(old, new)
    (backup / "manifest").write_text(changed)
    was, is_ = (hashlib.sha256(text.encode()).hexdigest() for text in (manifest, changed))
    (backup / "SHA256SUMS").write_text((backup / "SHA256SUMS").read_text().replace(was, is_))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (damage, "is damaged"),
        (lambda backup: (backup / "data.tar.gz").unlink(), "is damaged"),
        (lambda backup: (backup / "SHA256SUMS").unlink(), "is incomplete"),
        (lambda backup: newer(backup, "\ndagster 1.", "\ndagster 2."), "needs Dagster 2."),
        (lambda backup: newer(backup, "\npostgres 17", "\npostgres 18"), "needs Postgres 18"),
        (lambda backup: None, "no terminal to ask"),
    ],
    ids=["a flipped bit", "a lost file", "no checksums", "newer Dagster", "newer Postgres", "no terminal"],
)
def test_what_is_not_right_is_refused_before_anything_is_touched(
    spoil: Callable[[Path], None], words: str, checkout: Checkout, good: Path
) -> None:
    before = services(checkout)
    spoil(good)
    refused = checkout.try_("restore", f"BACKUP={good}")
    assert refused.returncode != 0
    assert f"Refused: {'' if 'terminal' in words else f'{good} '}{words}" in refused.stdout
    assert services(checkout) == before
    assert checkout.finish(checkout.launch()) == "SUCCESS"


@pytest.fixture
def good(checkout: Checkout, tmp_path: Path) -> Path:
    """Return a copy of a good backup, to spoil."""
    backups = sorted((checkout.directory / "backups").glob("[!.]*")) or [checkout.directory / checkout.backup()]
    subprocess.run(["cp", "-r", backups[-1], tmp_path / "good"], check=True)
    return tmp_path / "good"


def test_at_a_terminal_it_asks_and_no_is_no(checkout: Checkout, good: Path) -> None:
    postgres = checkout.container("postgres").id
    terminal, shell = pty.openpty()
    os.write(terminal, b"no\n")
    refused = checkout.try_("restore", f"BACKUP={good}", stdin=shell)
    os.close(terminal)
    assert refused.returncode != 0
    assert f"This replaces all runs, logs and files of {checkout.project} by" in refused.stdout
    assert "Nothing was changed." in refused.stdout
    assert checkout.container("postgres").id == postgres


@pytest.mark.parametrize("name", ["", "backups/none"])
def test_an_absent_backup_is_not_restored(name: str, checkout: Checkout) -> None:
    refused = checkout.try_("restore", f"BACKUP={name}")
    assert refused.returncode != 0
    assert "Name the backup to restore: make restore BACKUP=" in refused.stdout
