"""deploy/container/serve-user-code: clients always find a link to a code server that answers."""

import pytest

from tests.stack import Deployment


@pytest.mark.parametrize(
    "obstacle",
    [
        "ln -sfn nothing grpc.sock",
        "rm grpc.sock",
        "rm grpc.sock; mkdir -p grpc.sock/full",
        "rm grpc.sock; echo >grpc.sock",
    ],
)
def test_the_link_is_put_right(obstacle: str, neighbour: Deployment) -> None:
    neighbour.run_in("user_code", "sh", "-euc", f"cd /run/user_code; {obstacle}")
    own = neighbour.run_in("user_code", "hostname").decode().strip()
    neighbour.wait_for(
        "the link to the code server",
        lambda: neighbour.run_in("user_code", "sh", "-c", "readlink /run/user_code/grpc.sock; true").decode().strip(),
        lambda seen: seen == f"{own}.sock",
    )
    neighbour.run_in("dagster-daemon", "healthcheck", "code_location")


def test_the_check_only_checks(neighbour: Deployment) -> None:
    look = ("sh", "-c", "ls -l --time-style=full-iso /run/user_code")
    before = neighbour.run_in("user_code", *look)
    neighbour.run_in("user_code", "healthcheck", "user_code")
    assert neighbour.run_in("user_code", *look) == before
