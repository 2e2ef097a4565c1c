"""The external systems that the ops use."""

import os

import dagster as dg


class Connection(dg.ConfigurableResource[str]):
    """Stands for a database connection. `credentials` defaults to the variable CONNECTION_CREDENTIALS, or to none."""

    credentials: str | None = None

    @property
    def value(self) -> str:
        """The credentials in upper case, as if a server had answered. Never log it."""
        if self.credentials is None:
            return os.getenv("CONNECTION_CREDENTIALS", "").upper()
        return self.credentials.upper()
