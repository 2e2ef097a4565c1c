"""Open the gate: python -m gate IMAGE DESCRIPTION [IMAGE DESCRIPTION ...].

An IMAGE stands there without a tag; runs name it with one, whichever it is. With CHECK_ONLY set, exit with 0 where the
gate would open.
"""

import asyncio
import logging
import os
import re
import sys
from pathlib import Path

from gate import server
from gate.engine import Engine
from gate.reaper import Reaper
from gate.runs import Runs
from gate.template import Template


async def main(*described: str) -> None:
    """Open the gate until told to stop. SystemExit if a setting or the description of a run container is unsafe."""
    if not re.fullmatch("[0-9]{1,4}", os.environ["MAX_CONCURRENT_RUNS"]):
        sys.exit("The gate stays shut. Set MAX_CONCURRENT_RUNS in .env to a whole number, such as 4.")
    # A container lives on for a moment when its run is over for Dagster: hence twice as many.
    maximum = 2 * int(os.environ["MAX_CONCURRENT_RUNS"])
    async with Engine(os.getenv("ENGINE_SOCKET", "/var/run/docker.sock"), os.environ["PROJECT"]) as engine:
        templates = {}
        for image, description in zip(described[::2], described[1::2], strict=True):
            try:
                templates[image] = Template(image, description, engine.api)
            except (ValueError, TypeError) as error:
                sys.exit(f"The gate stays shut. In docker-compose.yml, where runs of {image} are described:\n{error}")
        if os.getenv("CHECK_ONLY"):
            return
        reaper = Reaper(engine, Path(os.getenv("GATE_STATE", "/var/lib/gate")))
        await reaper.take_over()
        await server.serve(Runs(engine, reaper, templates, maximum), Path(os.getenv("GATE_SOCKETS", "/run/gate")))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL + 1)  # its tracebacks quote requests
    asyncio.run(main(*sys.argv[1:]))
