"""Hours of launches and ticks, with a random fault every few minutes: every run is accounted for, and nothing leaks."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import docker
import pytest
from docker.models.containers import Container

from tests.faults.faulty import ALL, Faulty, Ledger
from tests.faults.soak import PANELS, Observer, picture
from tests.stack import ROOT, now

TICKING = {"dagster-daemon", "user_code", "postgres"}  # without one of these no tick launches its run


class Fault(NamedTuple):
    """A fault, the services that are down because of it, and whether the engine has to restart them."""

    name: str
    inject: Callable[[Faulty], None]
    down: list[str] = []
    restarted: bool = True


def signalled(signal: str, what: str, services: list[str]) -> Fault:
    """Return the fault of sending these services a signal."""

    def inject(stack: Faulty) -> None:
        for service in services:
            stack.signal(service, signal)

    return Fault(f"SIG{signal} of {what}", inject, services)


def pause_postgres(stack: Faulty) -> None:
    """Freeze the database for half a minute."""
    stack.compose("pause", "postgres")
    time.sleep(30)
    stack.compose("unpause", "postgres")


def in_flight(stack: Faulty) -> Container:
    """Return the newest container of a run in progress."""
    return stack.wait_for(
        "a run in flight",
        lambda: [container for container in stack.containers("dagster/run_id") if container.status == "running"],
        timeout=120,
    )[0]


def kill_a_run(stack: Faulty) -> None:
    """Kill a run's container."""
    while True:
        try:
            return in_flight(stack).kill()
        except docker.errors.APIError as error:
            if error.status_code != 409:  # it has just ended: take the next one
                raise


def cut_off_a_run(stack: Faulty) -> None:
    """Disconnect a run from its network for 20 seconds."""
    container, network = in_flight(stack), stack.engine.networks.get(f"{stack.project}_runs")
    network.disconnect(container)
    time.sleep(20)
    network.connect(container)


FAULTS = [
    *(signalled(signal, service, [service]) for service in ALL for signal in ("KILL", "STOP")),
    signalled("KILL", "all services", ALL),
    signalled("STOP", "all services but postgres", [service for service in ALL if service != "postgres"]),
    Fault("postgres paused for 30 s", pause_postgres, ["postgres"], restarted=False),
    Fault("SIGKILL of a run's container", kill_a_run),
    Fault("a run's container without network for 20 s", cut_off_a_run),
]


@pytest.fixture
def observer(faulty: Faulty) -> Iterator[Observer]:
    """Yield an observer that takes samples; draw them even if the soak fails."""
    observer = Observer(faulty)
    yield observer
    observer.close()
    observer.picture().savefig(ROOT / "docs/images/soak.svg")


def test_the_picture_shows_every_sample_and_fault(tmp_path: Path) -> None:
    samples = [(minute, {name: minute for names in PANELS.values() for name in names}) for minute in (0.0, 1.0, 3.0)]
    samples.insert(2, (2.0, {}))
    figure = picture(samples, [(0.5, 1.5)])
    figure.savefig(tmp_path / "soak.svg")
    lines = [line for axes in figure.axes for line in axes.lines]
    assert [line.get_label() for line in lines] == [name for names in PANELS.values() for name in names]
    assert {str(line.get_ydata()) for line in lines} == {"[ 0.  1. nan  3.]"}
    assert [len(axes.patches) for axes in figure.axes] == [1] * len(PANELS)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_no_run_is_lost_and_nothing_leaks(faulty: Faulty, ledger: Ledger, observer: Observer) -> None:
    hours, seed = float(os.getenv("HOURS") or 1.5), os.getenv("SEED") or str(random.randrange(10**6))
    print(f"\n`make soak HOURS={hours} SEED={seed}`\n")
    print("| Minute | Fault | Restarted after | Healthy after |\n|---|---|---|---|")
    chance, faults = random.Random(seed), list[Fault]()
    end = time.monotonic() + hours * 3600
    restarts, unexpected = faulty.restarts(), list[str]()
    while time.monotonic() < end - 300:
        time.sleep(chance.uniform(120, 180))
        faults = faults or chance.sample(FAULTS, len(FAULTS))  # each once before any is repeated
        fault = faults.pop()
        began, injected = now(), time.monotonic()
        fault.inject(faulty)
        # Longer than in their own tests: the machine may be busy, and the soak is about what the faults leave behind.
        if fault.restarted:
            faulty.wait_until_restarted(fault.down, restarts, timeout=180)
        detected = time.monotonic() - injected
        faulty.wait_until_healthy(timeout=180)
        recovered = time.monotonic() - injected
        observer.faults.append((began, now()))
        if TICKING & set(fault.down):
            ledger.outage(began)
        restarts, before = faulty.restarts(), restarts
        expected = fault.down if fault.restarted else []
        unexpected += [f"{s} at {fault.name}" for s in ALL if restarts[s] > before[s] and s not in expected]
        after = f"{detected:.0f} s" if expected else ""
        print(f"| {observer.minute(began):.0f} | {fault.name} | {after} | {recovered:.0f} s |", flush=True)
    time.sleep(max(0, end - time.monotonic()))

    counts = ledger.settle()
    faulty.wait_until_healthy()
    observer.close()
    counts["answer lost"] = counts["runs"] - sum(counts[made] for made in ("launched", "ticks", "retried"))
    medians = observer.medians()
    print("\n| Ledger | Runs |\n|---|---|")
    print(*(f"| {what} | {count} |" for what, count in counts.items()), sep="\n")
    print("\n| Median of | the second quarter | the last |\n|---|---|---|")
    print(*(f"| {name} | {second:.1f} | {last:.1f} |" for name, (second, last) in medians.items()), sep="\n")

    assert (counts["lost"], counts["doubled"], counts["failed"]) == (0, 0, 0), counts
    ledger.wait_until_removed()
    assert unexpected == [], "a healthy service was restarted"
    assert observer.unexplained() == []
    # The load is constant, so these must be too; a quarter, plus two, is noise.
    for name in ("all services", "connections", "containers", "open runs"):
        second, last = medians[name]
        assert last <= 1.25 * second + 2, f"{name} grew from {second:.1f} to {last:.1f}"
