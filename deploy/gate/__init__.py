"""The gate: the one container that holds the Docker engine's socket.

It lets Dagster's DockerRunLauncher create, start, inspect and stop run containers, and read the last lines of those
that ended. It refuses everything else. It removes run containers after their end.

**It relays nothing.** Each request to the engine is composed here, and its path holds at most an identifier that the
engine gave. A client says which run it wants: an image of a code location, the arguments of Dagster's command, two
labels, limits up to the operator's maxima, each checked. Everything else of the run's container is as the operator
wrote it in docker-compose.yml: the gate makes it like the container of the run's code server.
"""
