"""The three ops. Each one's config is checked before a run starts."""

import re
from typing import Any, Literal

import dagster as dg

from pipeline.resources import Connection

SENTENCES = {"1": "A#$.or?>)(*@alpha", "2": "b!*@Or><@!BeTa(*#@"}


class GetStringConfig(dg.Config):
    """Which sentence to pick: a key of `SENTENCES`."""

    data_key: Literal["1", "2"]


# The connection may fail for a moment, so the op is retried after 1, 2 and 4 s.
@dg.op(
    out={"sent": dg.Out(io_manager_key="text_io_manager")},
    retry_policy=dg.RetryPolicy(max_retries=3, delay=1, backoff=dg.Backoff.EXPONENTIAL),
)
def get_string(context: dg.OpExecutionContext, config: GetStringConfig, connection: Connection) -> str:
    """Pick a sentence from the system behind `connection`."""
    state = "with credentials" if connection.value else "without credentials"
    context.log.info("Picked sentence %s over the connection, %s", config.data_key, state)
    return SENTENCES[config.data_key]


class NormalizeStringConfig(dg.Config):
    """The letter case to give the sentence, and a switch that makes the op fail."""

    norm: Literal["upper", "lower"]
    force_error: bool = False


@dg.op(out={"sent_norm": dg.Out()})
def normalize_string_op(config: NormalizeStringConfig, sent: str) -> str:
    """Change the sentence to upper or lower case."""
    if config.force_error:
        raise dg.Failure("normalize_string failed because its config says force_error: true")
    return sent.upper() if config.norm == "upper" else sent.lower()


# Dagster calls this when a run is launched, and checks the result against NormalizeStringConfig. A Pydantic validator
# cannot: in Dagster 1.13, a Literal is checked before any validator runs, and a str is validated only inside the run.
@dg.configured(normalize_string_op, {"norm": str, "force_error": dg.Field(bool, default_value=False)})
def normalize_string(config: dict[str, Any]) -> dict[str, Any]:
    """Accept `norm` in any letter case."""
    return {**config, "norm": config["norm"].lower()}


class Hyperparams(dg.PermissiveConfig):
    """Free-form settings, for a model that would replace the regular expression."""


class CleanStringConfig(dg.Config):
    """The settings of the model, any that it may have."""

    hyperparams: Hyperparams = Hyperparams()


@dg.op(out={"sent_clean": dg.Out(io_manager_key="text_io_manager")})
def clean_string(context: dg.OpExecutionContext, config: CleanStringConfig, sent_norm: str) -> str:
    """Replace each character that is neither a word character nor white space with one space."""
    context.log.info("Cleaning with %d hyperparameters", len(config.hyperparams.model_extra or {}))
    sent_clean = re.sub(r"[^\w\s]", " ", sent_norm)
    print(sent_clean)  # shows in Dagit under stdout
    return sent_clean
