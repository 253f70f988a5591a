"""What goes wrong in a way that a user can act on: one clear message, and the exit code of its kind."""


class InftyError(Exception):
    """A failure with a message for the user. Exit code 1."""

    exit_code = 1


class UsageError(InftyError):
    """Wrong usage or configuration; nothing was written. Exit code 2."""

    exit_code = 2


class BusyError(UsageError):
    """Another process is at work where this one would be. Exit code 2."""


class MissingError(InftyError):
    """Data or a run is missing or damaged. Exit code 3."""

    exit_code = 3


class DifferenceError(InftyError):
    """A check found another result than the one it was held against. Exit code 4."""

    exit_code = 4


class Stopped(BaseException):
    """A signal asked for an end, and what was done so far is saved. Exit code 128 + signal."""

    # No Exception: it may be raised anywhere, and libraries that go on after any of these must not go on after this.
    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal
