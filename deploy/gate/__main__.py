"""Open the gate: python -m gate. With the id of a container in CHECK_ONLY, exit with 0 if it may have runs."""

import asyncio
import logging
import os
import re
import sys
from pathlib import Path

from gate import server
from gate.code_servers import CodeServers
from gate.engine import Engine
from gate.reaper import Reaper
from gate.runs import Runs


async def main() -> None:
    """Open the gate until told to stop. SystemExit if a setting or a code server is unsafe."""
    if not re.fullmatch("[0-9]{1,4}", os.environ["MAX_CONCURRENT_RUNS"]):
        sys.exit("The gate refuses to start. Set MAX_CONCURRENT_RUNS in .env to a whole number, such as 4.")
    # A container lives on for a moment when its run is over for Dagster: hence twice as many.
    maximum = 2 * int(os.environ["MAX_CONCURRENT_RUNS"])
    async with Engine(os.getenv("ENGINE_SOCKET", "/var/run/docker.sock"), os.environ["PROJECT"]) as engine:
        code_servers = CodeServers(engine)
        check_only = os.getenv("CHECK_ONLY")
        if problems := await code_servers.explain([check_only] if check_only else await code_servers.find_newest()):
            sys.exit(
                "The gate refuses to start. In docker-compose.yml, change the services whose code runs execute:\n"
                f"{problems}"
            )
        if check_only:
            return
        reaper = Reaper(engine, Path(os.getenv("GATE_STATE", "/var/lib/gate")))
        await reaper.take_over()
        await server.serve(Runs(engine, reaper, code_servers, maximum), Path(os.getenv("GATE_SOCKETS", "/run/gate")))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL + 1)  # its tracebacks quote requests
    asyncio.run(main())
