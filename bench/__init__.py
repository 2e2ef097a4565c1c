"""Measures this deployment against Dagster's documented one, side by side on one engine. `make bench`."""
