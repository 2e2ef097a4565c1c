"""The three ops. Each one's config is checked before a run starts."""

import re
from typing import Any, Literal

import dagster as dg
from pydantic import field_validator

from pipeline.resources import Connection

SENTENCES = {"1": "A#$.or?>)(*@alpha", "2": "b!*@Or><@!BeTa(*#@"}


class GetStringConfig(dg.Config):
    """Which sentence to pick: a key of `SENTENCES`."""

    data_key: Literal["1", "2"]


# What reaches outside may fail and work a moment later: it is tried again after 1, 2 and 4 s.
@dg.op(
    out={"sent": dg.Out(io_manager_key="text_io_manager")},
    retry_policy=dg.RetryPolicy(max_retries=3, delay=1, backoff=dg.Backoff.EXPONENTIAL),
)
def get_string(context: dg.OpExecutionContext, config: GetStringConfig, connection: Connection) -> str:
    """Pick a sentence from the source that `connection` stands for."""
    state = "with credentials" if connection.value else "without credentials"
    context.log.info("Picked sentence %s over the connection, %s", config.data_key, state)
    return SENTENCES[config.data_key]


class NormalizeStringConfig(dg.Config):
    """The letter case to give the sentence, and a switch that makes the op fail."""

    norm: str
    force_error: bool = False

    @field_validator("norm")
    @classmethod
    def check_norm(cls, norm: str) -> str:
        """Return `norm` in lower case; DagsterInvalidConfigError unless it is upper or lower, in any letter case."""
        if norm.lower() not in ("upper", "lower"):
            reason = f"norm must be 'upper' or 'lower', not {norm!r}"
            raise dg.DagsterInvalidConfigError(reason, [], norm)  # type: ignore[no-untyped-call]
        return norm.lower()


@dg.op(out={"sent_norm": dg.Out()})
def normalize_string_unchecked(config: NormalizeStringConfig, sent: str) -> str:
    """Change the sentence to upper or lower case."""
    if config.force_error:
        raise dg.Failure("normalize_string failed because its config says force_error: true")
    return sent.upper() if config.norm == "upper" else sent.lower()


# Dagster calls this when a run is requested, so a bad `norm` is refused before anything runs.
@dg.configured(normalize_string_unchecked)
def normalize_string(config: NormalizeStringConfig) -> NormalizeStringConfig:
    """Change the sentence to upper or lower case."""
    return config


class CleanStringConfig(dg.Config):
    """Free-form settings, for a model in place of the regular expression."""

    hyperparams: dict[str, Any] = {}


@dg.op(out={"sent_clean": dg.Out(io_manager_key="text_io_manager")})
def clean_string(context: dg.OpExecutionContext, config: CleanStringConfig, sent_norm: str) -> str:
    """Replace each character that is neither a word character nor white space with one space."""
    context.log.info("Cleaning with %d hyperparameters", len(config.hyperparams))
    sent_clean = re.sub(r"[^\w\s]", " ", sent_norm)
    print(sent_clean)  # shows in Dagit under stdout
    return sent_clean
