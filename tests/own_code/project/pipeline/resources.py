"""Where files are."""

import os
from pathlib import Path

import dagster as dg


class Files(dg.ConfigurableResource[Path]):
    """Files that outlive a run: in DATA_PATH, which is /data in containers; without Docker, in `data`."""

    def path(self, *names: str) -> Path:
        """Return the path of a file, in a directory that exists."""
        path = Path(os.getenv("DATA_PATH") or "data").joinpath(*names).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
