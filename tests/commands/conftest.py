"""A checkout of this project, and the stack that its make targets operate."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Deployment, copy_checkout, deployed

DIGEST = "find . -type f -exec sha256sum {} + | sort; find . -printf '%p %U %m\\n' | sort"


class Checkout(Deployment):
    """A copy of this project in a git repository of its own, and the stack made from it."""

    def __init__(self, directory: Path) -> None:
        """Copy what a clone would have into a directory and commit it, unless that is done."""
        super().__init__(directory)
        self.environment |= {"COMPOSE_ENV_FILES": os.devnull}
        if (directory / ".git").exists():
            return
        copy_checkout(directory)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *args: str) -> str:
        """Return what git prints."""
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", *args]
        return subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self) -> str:
        """Commit what has changed; return the tag that its images are to have."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Change")
        return self.git("rev-parse", "--short=12", "HEAD")

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text in a file."""
        text = (self.directory / path).read_text()
        assert old in text, f"{path} has no {old!r}"
        (self.directory / path).write_text(text.replace(old, new))

    def try_(self, *args: str, **popen: Any) -> subprocess.CompletedProcess[str]:
        """Run make as from a shell, even where make runs the tests."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(
            ["make", *args],
            cwd=self.directory,
            env=environment | self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **({"stdin": subprocess.DEVNULL} | popen),
        )

    def make(self, *args: str) -> str:
        """Return what make prints; raise with all of it if it fails."""
        began = time.monotonic()
        done = self.try_(*args)
        assert done.returncode == 0, f"make {' '.join(args)}:\n{done.stdout}"
        print(f"make {args[0]}: {time.monotonic() - began:.1f} s; {done.stdout.splitlines()[-1]}")
        return done.stdout

    def up(self) -> None:
        """Start as a user would."""
        self.make("up")

    def backup(self) -> str:
        """Back up; return the backup's path."""
        return self.make("backup").splitlines()[-1].split(":")[0]

    def image(self, service: str) -> str:
        """Return the image that a service's container was made from, by name."""
        return str(self.container(service).attrs["Config"]["Image"])

    def in_volume(self, volume: str, command: str) -> str:
        """Return what a shell command prints, run as root in a volume."""
        output = self.engine.containers.run(
            "postgres:17",
            ["-euc", command],
            entrypoint="bash",
            working_dir="/volume",
            volumes={f"{self.project}_{volume}": {"bind": "/volume", "mode": "rw"}},
            network_mode="none",
            remove=True,
        )
        return bytes(output).decode()

    def records(self) -> dict[str, str]:
        """Return a digest of every table; but what the daemon writes as time goes by, the schedules being off."""
        tables = self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").splitlines()
        row = dict.fromkeys(tables, "t::text")
        del row["daemon_heartbeats"]
        for table in ("jobs", "instigators"):  # when it last looked at a schedule
            row[table] = (
                "regexp_replace((to_jsonb(t) - 'update_timestamp')::text, 'last_iteration_timestamp[^,}]*', '')"
            )
        query = "SELECT count(*) || ' ' || coalesce(md5(string_agg({0}, ',' ORDER BY {0})), '') FROM {1} t"
        return {table: self.sql(query.format(row[table], table)) for table in row}

    def files(self) -> dict[str, str]:
        """Return each volume's files: their checksums, owners and modes."""
        return {volume: self.in_volume(volume, DIGEST) for volume in ("data", "storage", "secret")}

    def switch_schedules_off(self) -> None:
        """Switch the schedules off as in Dagit; wait until all runs have ended, and the daemon knows."""
        for name in ("every_minute", "every_night"):
            self.switch_schedule(name, on=False)
        self.wait_for("the end of all runs", self.unfinished, lambda left: left == [])
        unread = """
            SELECT count(*) FROM event_logs e JOIN kvs ON key = 'EVENT_LOG_CONSUMER_CURSOR-' || dagster_event_type
            WHERE e.id > value::bigint"""
        self.wait_for("the daemon to have read of all ends", lambda: self.sql(unread), lambda left: left == "0")

    def unfinished(self) -> list[str]:
        """Return the ids of runs that have not ended, or whose containers have not."""
        query = "SELECT run_id FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"
        running = (container for container in self.containers("dagster/run_id") if container.status == "running")
        return [*self.sql(query).splitlines(), *(container.labels["dagster/run_id"] for container in running)]


@pytest.fixture(scope="module")
def checkout(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Yield a stack that make targets operate."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    # What was starting when a backup was made fails that much sooner after a restore.
    checkout.edit("dagster.yaml", "start_timeout_seconds: 180", "start_timeout_seconds: 45")
    checkout.commit()
    with deployed(checkout):
        yield checkout
