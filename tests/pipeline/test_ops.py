"""pipeline/ops.py: what each op returns, and which configs are refused before a run starts."""

from typing import Any

import dagster as dg
import pytest

from pipeline import clean_string_job
from pipeline.jobs import clean_string_graph
from pipeline.ops import CleanStringConfig, GetStringConfig, NormalizeStringConfig, clean_string, get_string
from pipeline.resources import Connection


def run_config(data_key: object = "1", norm: object = "upper", **settings: object) -> dict[str, Any]:
    """Return the job's run config; `settings` go to `normalize_string`."""
    return {
        "ops": {
            "get_string": {"config": {"data_key": data_key}},
            "normalize_string": {"config": {"norm": norm, **settings}},
        }
    }


@pytest.mark.parametrize(("data_key", "sent"), [("1", "A#$.or?>)(*@alpha"), ("2", "b!*@Or><@!BeTa(*#@")])
def test_get_string_picks_the_sentence(data_key: Any, sent: str) -> None:
    config = GetStringConfig(data_key=data_key)
    assert get_string(dg.build_op_context(), config=config, connection=Connection()) == sent


class FlakyConnection(Connection):
    """A connection that fails as often as the list `failures` is long."""

    failures: list[str]

    @property
    def value(self) -> str:
        """Fail, or connect."""
        if self.failures:
            raise ConnectionError(self.failures.pop())
        return super().value


def test_get_string_is_tried_again_when_the_connection_fails() -> None:
    connection = FlakyConnection(failures=["no answer", "refused"])
    resources = {"connection": connection, "text_io_manager": dg.mem_io_manager}
    result = clean_string_graph.execute_in_process(run_config(), resources=resources)
    assert result.output_for_node("clean_string", "sent_clean") == "A   OR      ALPHA"
    retried = [event.step_key for event in result.all_events if event.is_step_up_for_retry]
    assert retried == ["get_string"] * 2


@pytest.mark.parametrize(
    ("data_key", "norm", "sent_norm"),
    [
        ("1", "upper", "A#$.OR?>)(*@ALPHA"),
        ("1", "lower", "a#$.or?>)(*@alpha"),
        ("2", "UPPER", "B!*@OR><@!BETA(*#@"),
        ("2", "LoWeR", "b!*@or><@!beta(*#@"),
    ],
)
def test_normalize_string_takes_norm_in_any_letter_case(data_key: str, norm: str, sent_norm: str) -> None:
    result = clean_string_job.execute_in_process(run_config(data_key, norm))
    assert result.output_for_node("normalize_string", "sent_norm") == sent_norm


@pytest.mark.parametrize(
    ("sent_norm", "sent_clean"),
    [
        ("A#$.OR?>)(*@ALPHA", "A   OR      ALPHA"),
        ("", ""),
        ("no_change 42", "no_change 42"),
        ("naïve, 日本語!", "naïve  日本語 "),
        ("tab\tline\nend.", "tab\tline\nend "),
        ("👍-", "  "),
    ],
)
def test_clean_string_replaces_each_character_alone(sent_norm: str, sent_clean: str) -> None:
    assert clean_string(dg.build_op_context(), config=CleanStringConfig(), sent_norm=sent_norm) == sent_clean


def test_clean_string_logs_how_many_hyperparameters_it_received(capfd: pytest.CaptureFixture[str]) -> None:
    config: Any = run_config()
    config["ops"]["clean_string"] = {"config": {"hyperparams": {"depth": 3, "nested": {"rate": 0.1}}}}
    assert clean_string_job.execute_in_process(config).success
    assert "Cleaning with 2 hyperparameters" in capfd.readouterr().err


def test_force_error_fails_with_a_clear_message() -> None:
    config = run_config(force_error=True)
    result = clean_string_job.execute_in_process(config, raise_on_error=False)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert failure.step_key == "normalize_string"
    assert "force_error" in str(failure.step_failure_data.error)
    assert not any(event.step_key == "clean_string" for event in result.all_events)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (run_config(data_key="3"), ["data_key", "'1'", "'2'"]),
        (run_config(data_key=1), ["data_key", "must be a string"]),
        (run_config(norm="title"), ["norm", "'upper'", "'lower'", "title"]),
        (run_config(norm=None), ["norm"]),
        (run_config(force_error="yes"), ["force_error", "Bool"]),
        (run_config(extra=1), ["extra", "norm"]),
        ({"ops": {"clean_string": {"config": {"hyperparams": [1]}}}}, ["hyperparams"]),
        ({"ops": {"no_such_op": {}}}, ["no_such_op", "clean_string"]),
    ],
)
def test_bad_config_is_refused_before_anything_runs(
    config: dict[str, Any], words: list[str], instance: dg.DagsterInstance
) -> None:
    with pytest.raises(dg.DagsterError) as refusal:
        clean_string_job.execute_in_process(config, instance=instance)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)
    assert instance.get_runs_count() == 0


def test_required_fields_have_no_default_of_their_own() -> None:
    with pytest.raises(ValueError, match="data_key"):
        GetStringConfig()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="norm"):
        NormalizeStringConfig()  # type: ignore[call-arg]
