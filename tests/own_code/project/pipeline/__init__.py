"""A small shop: each day's orders become a table, the tables become the revenue."""

from pipeline.definitions import defs

__all__ = ["defs"]
