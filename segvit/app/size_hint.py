"""A hint for visitors whose photo is far larger than what the model learned on.

size_hint(network.protocol, network.image_size, height=3024, width=4032)
"""

from segvit.config import EvalConfig
from segvit.inference.protocol import protocol_size

FAR = 4
"""Factor from which a photo counts as far larger."""


def size_hint(protocol: EvalConfig, image_size: int, *, height: int, width: int) -> str | None:
    """Return the hint for a photo of a size in pixels, or None if none is needed.

    A model whose protocol resizes photos loses small things. A model that looks at photos in their native size meets
    things much larger than those in its training photos.

    Args:
        protocol: how the model resizes photos.
        image_size: side in pixels of the crops that the model learned on.
        height: height of the photo.
        width: width of the photo.
    """
    seen_height, seen_width = protocol_size(height, width, protocol)
    factor = height / seen_height
    if factor >= FAR:
        return (
            f"The model looks at this photo at {seen_width} × {seen_height} px, the scale that it learned on. Things "
            f"below about {round(2 * factor)} px are lost: to find them, crop the photo."
        )
    if min(seen_height, seen_width) >= FAR * image_size:
        return (
            f"The model learned on crops of {image_size} × {image_size} px, and this photo has {width} × {height} px. "
            "If things in it are much larger than in the training photos, shrink the photo."
        )
    return None
