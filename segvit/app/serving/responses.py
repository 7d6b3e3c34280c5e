"""Answers of the API in JSON: contents, and the reasons of refusals."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segvit.app.serving.refusals import RETRY_SECONDS, Refusal, status_of
from segvit.errors import UserError

if TYPE_CHECKING:
    from starlette.responses import Response


def refusal(error: UserError) -> "Response":
    """Return the answer to a request that is refused."""
    later = isinstance(error, Refusal) and error.status == 503
    return json_response(
        status_of(error), {"error": str(error)}, {"Retry-After": str(RETRY_SECONDS)} if later else None
    )


def json_response(status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> "Response":
    """Return an answer in JSON. It is ASCII, so a reason may quote any text, even half of a surrogate pair."""
    from starlette.responses import Response

    return Response(json.dumps(content, allow_nan=False), status, headers, media_type="application/json")
