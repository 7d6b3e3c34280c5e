"""The HTTP statuses of the API, and the errors that are not the fault of a photo, each with its status."""

from segvit.errors import UserError

STATUSES = {
    400: "no photo, or an unknown parameter or model",
    401: "no key, or a wrong one, if the server has keys",
    404: "an address that the API does not have",
    405: "a method other than those of the address",
    406: "the header Accept asks for neither PNG nor JSON",
    408: "the upload took longer than --timeout",
    413: "the file is too large",
    415: "the body is not multipart/form-data",
    422: "the photo cannot be read, or has too many pixels",
    500: "an error of the server; its terminal shows the details",
    502: "Label Studio does not give the image of a task",
    503: "too many requests wait, the disk is full, or the server is stopping: try again later",
    504: "the photo took longer than --timeout",
}
"""Statuses of refusals, each with its reasons. The page for programs and docs/app.md list them."""
RETRY_SECONDS = 10
"""Seconds after which a refused request may come again."""
UNREADABLE = 422
"""Status of all errors that are no `Refusal`."""


class Refusal(UserError):
    """An error of a request that is not the fault of its photo."""

    status: int
    """HTTP status, one of STATUSES."""


class WrongRequest(Refusal):
    """The request names an unknown model, or holds no photo."""

    status = 400


class NotAcceptable(Refusal):
    """The header Accept asks for formats that there are not."""

    status = 406


class SlowUpload(Refusal):
    """The body of the request took too long to arrive."""

    status = 408


class NoForm(Refusal):
    """The body of the request is no form."""

    status = 415


class ServerFault(Refusal):
    """A worker has ended without an answer."""

    status = 500


class Unreachable(Refusal):
    """Label Studio does not give an image."""

    status = 502


class Full(Refusal):
    """No space is left on the disk, or too many requests wait."""

    status = 503


class Ended(Refusal):
    """The server is stopping."""

    status = 503


class TooSlow(Refusal):
    """The photo took longer than the time limit."""

    status = 504


def status_of(error: UserError) -> int:
    """Return the HTTP status of an error."""
    return error.status if isinstance(error, Refusal) else UNREADABLE
