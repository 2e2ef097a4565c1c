"""The gate: the one container that holds the Docker engine's socket.

It lets Dagster's DockerRunLauncher create, start, inspect and stop run containers, and read the last lines of those
that ended. It refuses everything else. It removes run containers after their end.

**It relays nothing.** Each request to the engine is composed here: its path is a constant, with at most a container's
64 hexadecimal digits in it, and the body of a create request is a template. The template is made at start from the
deployment's own description of a run container, by the library that the launcher uses. A client fills in what differs
from run to run, each checked: the command's JSON, the values of the environment's variables, two labels.
"""
