"""A full or read-only disk: the failure is named where it shows, and everything recovers once there is room again."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.faulty import Faulty, Ledger
from tests.stack import BASE_IMAGES, deployed, now

SIZES = {"data": "8m", "postgres": "256m"}


class Small(Faulty):
    """A stack with small volumes for the texts and the database."""

    def up(self) -> None:
        """Create the small volumes before Compose does, and hold them: in memory, they last as long as a user."""
        for name, size in SIZES.items():
            self.engine.volumes.create(
                f"{self.project}_{name}",
                driver_opts={"type": "tmpfs", "device": "tmpfs", "o": f"size={size},uid=1000"},
                labels={"com.docker.compose.project": self.project, "com.docker.compose.volume": name},
            )
        self.holder = self.engine.containers.run(
            BASE_IMAGES[0],
            ["sleep", "infinity"],
            volumes={f"{self.project}_{name}": {"bind": f"/{name}", "mode": "rw"} for name in SIZES},
            network_mode="none",
            detach=True,
        )
        super().up()

    def remove(self) -> None:
        """Stop holding the volumes; remove every trace."""
        self.holder.remove(force=True)
        super().remove()

    def on_volumes(self, command: str) -> None:
        """Run a shell command with the volumes at /data and /postgres."""
        exit_code, output = self.holder.exec_run(["sh", "-euc", command])
        assert exit_code == 0, output


@pytest.fixture(scope="module")
def small(docker_engine: None) -> Iterator[Small]:
    """Yield a stack with small volumes."""
    small = Small()
    with deployed(small):
        yield small


@pytest.fixture
def ledger(small: Small) -> Iterator[Ledger]:
    """Yield a ledger of that stack."""
    ledger = Ledger(small)
    yield ledger
    ledger.close()


# How to break it, and how to repair it.
FULL = "! head -c 1G /dev/zero >/{}/filler", "rm /{}/filler"
READ_ONLY = "find /{} -type d -exec chmod a-w {{}} +", "find /{} -type d -exec chmod u+w {{}} +"


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("reason", "fault"), [("No space left on device", FULL), ("Permission denied", READ_ONLY)])
def test_a_run_that_cannot_write_its_text_fails_with_a_reason_and_leaves_no_partial_file(
    reason: str, fault: tuple[str, str], small: Small, ledger: Ledger, report: Callable[..., None]
) -> None:
    time.sleep(15)
    break_it, repair = fault
    small.on_volumes(break_it.format("data"))
    broken = time.monotonic()
    run_id = small.launch()
    assert small.finish(run_id) == "FAILURE"
    detected = time.monotonic() - broken
    time.sleep(15)
    small.on_volumes(repair.format("data"))
    repaired = time.monotonic()
    assert small.finish(small.reexecute(run_id)) == "SUCCESS"
    recovered = time.monotonic() - repaired
    counts = ledger.settle()
    report(f"the volume data: {reason}", detected, recovered, **counts)
    failed = [run.id for run in ledger.runs() if run.status == "FAILURE"]
    assert run_id in failed
    assert [id_ for id_ in failed if reason not in str(small.events(id_))] == []
    assert (counts["lost"], counts["doubled"], counts["refused"], counts["retried"]) == (0, 0, 0, 1), counts
    assert b".partial" not in small.run_in("dagit", "ls", "-AR", "/data")
    assert small.finish(small.launch()) == "SUCCESS"


@pytest.mark.long
def test_the_clean_up_keeps_the_run_whose_texts_it_cannot_delete(small: Small) -> None:
    run_id = small.launch()
    assert small.finish(run_id) == "SUCCESS"
    assert small.finish(small.launch()) == "SUCCESS"  # the assets' latest materializations
    small.sql(f"UPDATE runs SET update_timestamp = update_timestamp - interval '2 days' WHERE run_id = '{run_id}'")

    def clean_up() -> str:
        config = {"ops": {"delete_old_runs": {"config": {"days": 1}}}}
        return small.finish(small.launch(config, job="retention_job"))

    def left() -> tuple[str, bytes]:
        rows = small.sql(f"SELECT count(*) FROM runs WHERE run_id = '{run_id}'")
        return rows, small.run_in("dagit", "find", "/data", "-path", f"*{run_id}/sent*")

    before = left()
    small.on_volumes(READ_ONLY[0].format("data"))
    assert clean_up() == "FAILURE"
    assert left() == before
    small.on_volumes(READ_ONLY[1].format("data"))
    assert clean_up() == "SUCCESS"
    assert left() == ("0", b"")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_database_recovers_once_its_disk_has_room(
    small: Small, ledger: Ledger, report: Callable[..., None]
) -> None:
    time.sleep(15)
    began = now()
    small.on_volumes(FULL[0].format("postgres"))
    broken = time.monotonic()
    small.wait_for("a refusal", lambda: ledger.refused, timeout=120)
    detected = time.monotonic() - broken
    time.sleep(45)
    small.on_volumes(FULL[1].format("postgres"))
    launched = len(ledger.launched)
    repaired = time.monotonic()
    assert "No space left on device" in small.logs("--tail", "200", "postgres")
    small.wait_until_healthy()
    small.wait_for("a launch", lambda: ledger.launched[launched:])
    recovered = time.monotonic() - repaired
    ledger.outage(began)
    counts = ledger.settle()
    report("the disk of postgres full for 45 s", detected, recovered, **counts)
    assert (counts["lost"], counts["doubled"], counts["failed"]) == (0, 0, 0), counts
