"""`make up`, `deploy`, `put` and `get`: images tagged with the commit, code replaced under load, files copied."""

import io
import os
import re
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.commands.conftest import Checkout
from tests.deployment.test_schedule import scheduled
from tests.stack import BASE_IMAGES, JOB, LOCATION, MINUTE, now


def shows(checkout: Checkout, text: str) -> bool:
    """Tell whether Dagit describes the job so."""
    job = LOCATION | {"pipelineName": JOB}
    query = "query($of: PipelineSelector!) { pipelineOrError(params: $of) { ... on Pipeline { description } } }"
    return text in checkout.query(query, of=job)["description"]


def others(checkout: Checkout) -> dict[str, tuple[str | None, Any]]:
    """Return what a restart of the other services would change."""
    services = ("postgres", "gate", "dagit", "dagster-daemon")
    containers = {service: checkout.container(service) for service in services}
    return {service: (each.id, each.attrs["State"]["StartedAt"]) for service, each in containers.items()}


def test_the_images_carry_the_commit_and_are_the_latest(checkout: Checkout) -> None:
    commit = checkout.git("rev-parse", "--short=12", "HEAD")
    for service, name in {"dagit": "dagster", "user_code": "user_code", "gate": "gate"}.items():
        assert checkout.image(service) == f"{checkout.project}-{name}:{commit}"
        latest = checkout.engine.images.get(f"{checkout.project}-{name}:latest")
        assert latest.id == checkout.container(service).attrs["Image"]
    run_id = checkout.launch()
    assert checkout.finish(run_id) == "SUCCESS"
    assert checkout.tags(run_id)["dagster/image"] == f"{checkout.project}-user_code:{commit}"


@pytest.mark.parametrize("deploys", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_deploy_under_load_loses_and_doubles_nothing(deploys: int, checkout: Checkout) -> None:
    first, before, old = now(), others(checkout), checkout.image("user_code")
    in_flight = checkout.hang()
    asked, done = [], threading.Event()

    def ask() -> None:
        """Ask Dagit, all the time, what only user_code knows: what a config would do."""
        query = """
            query($of: PipelineSelector!) { isPipelineConfigValid(pipeline: $of, mode: "default", runConfigData: {}) {
                __typename } }"""
        job = LOCATION | {"pipelineName": JOB}
        while not done.is_set():
            answer = requests.post(
                f"{checkout.url}/graphql", json={"query": query, "variables": {"of": job}}, timeout=60
            )
            asked.append(answer.text)
            time.sleep(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for number in range(deploys):
            checkout.edit("pipeline/jobs.py", '"""Pick a sentence', f'"""{number}: Pick a sentence')
            commit = checkout.commit()
            time.sleep((55 + number - time.time()) % 60)  # so that the handover, some 5 s later, meets a tick
            checkout.make("deploy")
            began = time.monotonic()
            checkout.wait_for("the new definitions", partial(shows, checkout, f"{number}:"), timeout=15)
            print(f"in Dagit {time.monotonic() - began:.1f} s after the deploy")
            checkout.edit("pipeline/jobs.py", f'"""{number}: Pick', '"""Pick')
    finally:
        done.set()
        thread.join()
    assert len(asked) > 100
    assert [text for text in asked if "PipelineConfigValidationValid" not in text] == []
    assert others(checkout) == before

    (container,) = checkout.containers(f"dagster/run_id={in_flight}")
    assert (container.status, container.attrs["Config"]["Image"]) == ("running", old)
    checkout.engine.containers.run(
        old,
        ["cat", f"/data/{in_flight}/.sent_clean.txt.partial"],  # what it waits for
        volumes={f"{checkout.project}_data": {"bind": "/data", "mode": "rw"}},
        network_mode="none",
        remove=True,
    )
    assert checkout.finish(in_flight) == "SUCCESS"
    run_id = checkout.launch()
    assert checkout.finish(run_id) == "SUCCESS"
    assert checkout.tags(run_id)["dagster/image"] == f"{checkout.project}-user_code:{commit}"

    dates = checkout.wait_for(
        "a tick at each handover",
        lambda: [date for date in scheduled(checkout) if date > first],
        lambda dates: len(dates) >= deploys,
    )
    assert now() - dates[-1] < 1.5 * MINUTE
    assert dates == [dates[0] + minute * MINUTE for minute in range(len(dates))]
    failed = "SELECT count(*) FROM job_ticks WHERE status NOT IN ('SUCCESS', 'STARTED')"
    assert checkout.sql(failed) == "0"


@pytest.mark.parametrize("command", ["up", "deploy"])
def test_code_that_does_not_load_is_refused_and_nothing_changes(command: str, checkout: Checkout) -> None:
    before, old = others(checkout), checkout.container("user_code").id
    latest = checkout.engine.images.get(f"{checkout.project}-user_code:latest").id
    checkout.edit("pipeline/jobs.py", "import dagster as dg", "import dagster as dg\nimport no_such_module")
    refused = checkout.try_(command)
    checkout.edit("pipeline/jobs.py", "\nimport no_such_module", "")
    assert refused.returncode != 0
    assert "No module named 'no_such_module'" in refused.stdout
    assert "Refused: the definitions do not load; the error is above. Nothing was replaced." in refused.stdout
    assert (others(checkout), checkout.container("user_code").id) == (before, old)
    assert checkout.engine.images.get(f"{checkout.project}-user_code:latest").id == latest
    assert checkout.finish(checkout.launch()) == "SUCCESS"


@pytest.mark.parametrize("command", ["up", "deploy"])
def test_a_run_that_the_gate_would_reject_is_refused_and_nothing_changes(command: str, checkout: Checkout) -> None:
    before, old = others(checkout), checkout.container("user_code").id
    checkout.edit("docker-compose.yml", "      - data:/data\n", "      - data:/data\n      - /etc:/host\n")
    refused = checkout.try_(command)
    checkout.edit("docker-compose.yml", "      - /etc:/host\n", "")
    assert refused.returncode != 0
    assert 'user_code: remove "/etc" from "volumes"' in refused.stdout
    assert "Refused: runs would get more than code may have" in refused.stdout
    assert (others(checkout), checkout.container("user_code").id) == (before, old)
    assert checkout.finish(checkout.launch()) == "SUCCESS"


def test_files_get_onto_the_volume_where_runs_see_them_and_back(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a b.csv").write_text("1,2\n")
    os.chmod(tmp_path / "in/a b.csv", 0o600)
    checkout.make("put", f"FROM={tmp_path}/in", "TO=seeds/today")
    checkout.make("put", f"FROM={tmp_path}/in/a b.csv", "TO=/data/seeds/one.csv")
    found = "find seeds -printf '%p %U\n' | sort"
    assert checkout.in_volume("data", found).splitlines() == [
        "seeds 1000",
        "seeds/one.csv 1000",
        "seeds/today 1000",
        "seeds/today/a b.csv 1000",
    ]
    checkout.make("get", "FROM=/data/seeds", f"TO={tmp_path}/out")
    checkout.make("get", "FROM=seeds/one.csv", f"TO={tmp_path}/one.csv")
    assert (tmp_path / "out/today/a b.csv").read_text() == (tmp_path / "one.csv").read_text() == "1,2\n"
    assert "The volume data has no absent." in checkout.try_("get", "FROM=absent").stdout
    assert "Name a file or directory to copy" in checkout.try_("put", "FROM=absent").stdout


@pytest.mark.parametrize("command", ["up", "deploy"])
def test_a_server_that_does_not_get_healthy_is_refused_and_the_old_one_goes_on(
    command: str, checkout: Checkout
) -> None:
    old, image = checkout.container("user_code").id, checkout.image("user_code")
    checkout.edit("deploy/container/serve-user-code", "exec dagster api grpc", "exec dagster api nonsense")
    refused = checkout.try_(command)
    checkout.edit("deploy/container/serve-user-code", "exec dagster api nonsense", "exec dagster api grpc")
    assert refused.returncode != 0
    assert "No such command 'nonsense'" in refused.stdout
    if command == "deploy":
        assert "Refused: the new user_code does not become healthy" in refused.stdout
        assert checkout.container("user_code").id == old
    else:
        assert re.search(r"Nothing is new: \S+ runs \w+ as before\.", refused.stdout)
        assert checkout.image("user_code") == image
    assert checkout.finish(checkout.launch()) == "SUCCESS"


def test_old_images_go_but_not_those_in_use_or_of_others(checkout: Checkout) -> None:
    def make(tag: str) -> str:
        time.sleep(1.1)  # by whole seconds the engine tells which is newer
        file = f"FROM {BASE_IMAGES[0]}\nLABEL tag={tag}\n".encode()
        checkout.engine.images.build(fileobj=io.BytesIO(file), tag=tag, rm=True)
        return tag

    def tags(kind: str) -> set[str]:
        return {tag for image in checkout.engine.images.list(f"{checkout.project}-{kind}") for tag in image.tags}

    checkout.compose("pause", "dagster-daemon")
    try:
        queued, image = checkout.launch(), checkout.image("user_code")
        old = [make(f"{checkout.project}-user_code:{number}") for number in range(7)]
        foreign = {make(f"{checkout.project}-user_code-neighbour:{number}") for number in range(7)}
        used = checkout.engine.containers.create(old[0])
        # Containers of runs that ended in the last minute may be there still, or not.
        recent = {run.attrs["Config"]["Image"] for run in checkout.containers("dagster/run_id")}
        # New to the engine's build cache, which else gives the image of an earlier session, as old as it is.
        checkout.edit("pipeline/jobs.py", '"""Pick', f'"""{checkout.project}: Pick')
        checkout.make("deploy")
        used.remove()
        assert tags("user_code-neighbour") == foreign
        left = tags("user_code")
    finally:
        checkout.compose("unpause", "dagster-daemon")
    new = checkout.image("user_code")
    assert re.fullmatch(rf"{checkout.project}-user_code:[0-9a-f]{{12}}-dirty-[0-9a-f]{{8}}", new)
    assert left - recent == {new, f"{checkout.project}-user_code:latest", image, old[0], *old[3:]} - recent
    # It was queued by the code before, and starts on it.
    assert checkout.finish(queued) == "SUCCESS"
    assert checkout.tags(queued)["dagster/image"] == image
