"""Decode an image that a labelling tool sends as text in base64.

content = decoded(text, limits)
"""

import base64

from segvit.app.limits import Limits
from segvit.app.serving.refusals import WrongRequest


def decoded(text: str, limits: Limits) -> bytes:
    """Return the bytes of an image in base64.

    Raises:
        WrongRequest: it is no base64, or too large.
    """
    if len(text) * 3 / 4 > limits.bytes + 3:
        raise WrongRequest(f"the image is too large: the limit is {limits.max_megabytes:g} MB")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error, or characters beyond ASCII
        raise WrongRequest(f"the image is no base64 ({error}): send it again") from error
