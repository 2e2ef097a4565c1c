"""The one way to say no."""


class RefusedError(Exception):
    """No, with an HTTP status and a reason, which quotes no text that a client sent."""

    def __init__(self, status: int, reason: str) -> None:
        """Say no."""
        super().__init__(reason)
        self.status = status
