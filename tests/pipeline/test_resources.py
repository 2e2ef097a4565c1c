"""pipeline/resources.py: where the credentials come from, and that they stay out of the logs."""

import pytest

from pipeline import clean_string_job
from pipeline.resources import Connection


def test_value_is_the_credentials_in_upper_case() -> None:
    assert Connection(credentials="user:s3cret").value == "USER:S3CRET"


def test_credentials_come_from_the_environment_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection()
    assert connection.value == ""
    monkeypatch.setenv("CONNECTION_CREDENTIALS", "user:s3cret")
    assert connection.value == "USER:S3CRET"


def test_a_run_says_that_it_connected_and_never_prints_the_credentials(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONNECTION_CREDENTIALS", "user:s3cret")
    result = clean_string_job.execute_in_process()
    assert result.success
    printed = "".join(capfd.readouterr())
    assert "over the connection, with credentials" in printed
    assert "s3cret" not in (printed + str(result.all_events)).lower()
