"""`make upgrade`: from an older Dagster, with its history; and back, if the new images do not become healthy."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.conftest import Checkout
from tests.stack import deployed

OLD = {"dagster~=1.13.27": "dagster~=1.12.0", "~=0.29.27": "~=0.28.0", "webserver~=1.13.27": "webserver~=1.12.0"}
FAILING = {
    "ops": {
        "get_string": {"config": {"data_key": "1"}},
        "normalize_string": {"config": {"norm": "upper", "force_error": True}},
    }
}
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def old(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Yield a stack of Dagster 1.12 with a few runs, in a checkout that has been brought up to date since."""
    old = Checkout(tmp_path_factory.mktemp("old"))
    project = (old.directory / "pyproject.toml").read_text()
    for now, then in OLD.items():
        project = project.replace(now, then)
    (old.directory / "pyproject.toml").write_text(project)
    for image in ("dagster", "user_code"):
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        output = ["--python-version", "3.13", "--group", image, "--output-file", f"requirements/{image}.txt"]
        (old.directory / f"requirements/{image}.txt").unlink()
        subprocess.run([*command, *output], cwd=old.directory, check=True)
    old.commit()
    with deployed(old):
        for _ in range(3):
            assert old.finish(old.launch()) == "SUCCESS"
        assert old.finish(old.launch(FAILING)) == "FAILURE"
        old.git("checkout", "HEAD^", "--", "pyproject.toml", "requirements")
        old.commit()
        yield old


def history(deployment: Checkout) -> dict[str, str]:
    """Return a digest of every run, event, tick and asset there is when the schedule is off."""
    queries = {
        "runs": "SELECT run_id, status, run_body, create_timestamp FROM runs",
        "tags": "SELECT run_id, key, value FROM run_tags",
        "events": "SELECT id, run_id, event, dagster_event_type, timestamp, step_key, asset_key FROM event_logs",
        "ticks": "SELECT id, status, tick_body FROM job_ticks",
        "assets": "SELECT asset_key FROM asset_keys",
    }
    digest = "SELECT count(*) || ' ' || md5(string_agg(t::text, ',' ORDER BY t::text)) FROM ({}) t"
    return {name: deployment.sql(digest.format(query)) for name, query in queries.items()}


def version(deployment: Checkout) -> str:
    """Return the version of Dagster that Dagit runs."""
    return deployment.run_in("dagit", "dagster", "--version").decode().split()[-1]


def test_images_that_do_not_become_healthy_give_way_to_the_old_ones(old: Checkout) -> None:
    images = {service: old.image(service) for service in ("dagit", "dagster-daemon", "user_code", "gate")}
    latest = old.engine.images.get(f"{old.project}-dagster:latest").id
    old.edit("Dockerfile.dagster", 'CMD ["start-dagit"', 'CMD ["start-nonsense"')
    refused = old.try_("upgrade")
    old.edit("Dockerfile.dagster", 'CMD ["start-nonsense"', 'CMD ["start-dagit"')
    assert refused.returncode != 0
    assert "Rolling back." in refused.stdout
    assert re.search(rf"Not upgraded: {old.project} runs \w+ as before.", refused.stdout), refused.stdout
    assert {service: old.image(service) for service in images} == images
    assert version(old).startswith("1.12.")
    assert old.engine.images.get(f"{old.project}-dagster:latest").id == latest
    assert old.finish(old.launch()) == "SUCCESS"


def test_an_upgrade_keeps_all_history(old: Checkout) -> None:
    assert version(old).startswith("1.12.")
    old.switch_schedules_off()
    before, files = history(old), old.files()
    said = old.make("upgrade")
    assert re.search(rf"Upgraded {old.project} from \w+ to \w+ in \d+ s\. Backup made before: backups/", said)
    assert (history(old), old.files()) == (before, files)
    (locked,) = re.findall(r"^dagster==(\S+)", Path("requirements/dagster.txt").read_text(), re.MULTILINE)
    assert version(old) == locked
    assert old.finish(old.launch()) == "SUCCESS"
