"""Stacks to test and to measure: a running copy of this project, and what can be done to it and asked of it."""

from tests.stack.checkout import ROOT, copy_checkout
from tests.stack.deployment import (
    BASE_IMAGES,
    ENDED,
    JOB,
    LOCATION,
    MINUTE,
    SERVICES,
    Deployment,
    deployed,
    free_port,
    now,
)

__all__ = [
    "BASE_IMAGES",
    "ENDED",
    "JOB",
    "LOCATION",
    "MINUTE",
    "ROOT",
    "SERVICES",
    "Deployment",
    "copy_checkout",
    "deployed",
    "free_port",
    "now",
]
