"""`make audit`: that it passes on what we deploy, and fails on what must not be."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest
from commands import audit

from tests.edge.published import Published
from tests.stack import ROOT


def run_audit(edge: Published) -> subprocess.CompletedProcess[str]:
    """Run it on the stack."""
    return subprocess.run(
        [sys.executable, "deploy/commands/audit.py"],
        cwd=ROOT,
        env=os.environ | edge.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_we_deploy_passes_and_each_image_has_a_bill_of_materials(edge: Published) -> None:
    done = run_audit(edge)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "UNEXPECTED" not in done.stdout
    parts = {
        image: {part["purl"] for part in json.loads((ROOT / f"audit/{image}.cdx.json").read_text())["components"]}
        for image in ("dagster", "user_code", "gate", "edge", "postgres")
    }
    assert f"pkg:pypi/dagster-webserver@{version('dagster-webserver')}" in parts["dagster"]
    assert f"pkg:pypi/aiohttp@{version('aiohttp')}" in parts["gate"]
    assert f"pkg:pypi/dagster@{version('dagster')}" in parts["user_code"]
    assert all(any(part.startswith(("pkg:deb/", "pkg:apk/")) for part in bill) for bill in parts.values())


def test_a_container_that_may_too_much_is_named(edge: Published) -> None:
    labels = {"project": edge.project, "service": "intruder", "oneoff": "False"}
    intruder = edge.engine.containers.run(
        f"{edge.project}-edge",
        ["sleep", "600"],
        cap_add=["SYS_PTRACE"],
        labels={f"com.docker.compose.{name}": value for name, value in labels.items()},
        detach=True,
    )
    try:
        done = run_audit(edge)
    finally:
        intruder.remove(force=True)
    assert done.returncode == 1
    rules = done.stdout.split("\n5.")
    unexpected = {"5." + rule.split()[0] for rule in rules if "intruder: UNEXPECTED" in rule}
    assert unexpected == {"5.4", "5.11", "5.13", "5.26", "5.27", "5.29", "5.30"}


@pytest.mark.parametrize(
    ("package", "online", "good"),
    [
        ({"version": "1", "vulns": []}, "1", True),
        ({"version": "1", "vulns": [{"id": "CVE-1"}]}, "", False),
        ({"skip_reason": "not found"}, "", True),
        ({"skip_reason": "not found"}, "1", False),
    ],
)
def test_vulnerabilities_fail_and_so_does_not_looking_them_up_online(
    package: dict[str, Any], online: str, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps({"dependencies": [{"name": "x", **package}]}).encode()
    done = subprocess.CompletedProcess("", 0, stdout=answer, stderr=b"")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    monkeypatch.setenv("AUDIT_ONLINE", online)
    assert audit.check_vulnerabilities() is good


def test_an_audit_that_says_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess("", 1, stdout=b"", stderr=b"requirements are broken")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(SystemExit, match="requirements are broken"):
        audit.check_vulnerabilities()
