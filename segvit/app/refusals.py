"""Errors that are not the fault of a photo, each with its HTTP status for the API."""

from segvit.errors import UserError

UNREADABLE = 422
"""HTTP status of all other errors: the photo cannot be read, or has too many pixels."""


class Refusal(UserError):
    """An error of a request that is not the fault of its photo."""

    status: int
    """HTTP status."""


class WrongRequest(Refusal):
    """The request names an unknown model, or holds no photo."""

    status = 400


class ServerFault(Refusal):
    """A worker has ended without an answer."""

    status = 500


class Full(Refusal):
    """No space is left on the disk, or too many requests wait."""

    status = 503


class TooSlow(Refusal):
    """The photo took longer than the time limit."""

    status = 504


def status_of(error: UserError) -> int:
    """Return the HTTP status of an error."""
    return error.status if isinstance(error, Refusal) else UNREADABLE
