"""Label one image of the user, and show the result.

    result = segvit.predict(model, "photo.jpg")
    result.labels                      # (H, W) int64, at the size as displayed
    result.overlay().save("seen.png")

Letters: K classes, H W image.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segvit.config import EvalConfig, PrecisionChoice
from segvit.data.images import Source, to_rgb
from segvit.data.palette import Color
from segvit.inference.network import Network, classes_of
from segvit.inference.precision import computing_in, resolve_precision
from segvit.inference.protocol import image_confidence, image_labels
from segvit.pictures import overlay, shares, with_legend
from segvit.pictures.paint import without_background


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Labels of one image."""

    image: npt.NDArray[np.uint8]
    """The image uint8 (H, W, 3), RGB, upright."""
    labels: npt.NDArray[np.int64]
    """(H, W) class indices, 0..K-1."""
    classes: tuple[str, ...]
    """Names (K,)."""
    palette: tuple[Color, ...]
    """Colours (K,)."""
    confidence: npt.NDArray[np.float32] | None
    """(H, W) share of the winning class in the scores of a pixel, 0..1; None unless asked for."""

    def shares(self) -> dict[str, float]:
        """Return the share of the pixels of each class that is present, by name, largest first."""
        fractions = shares(self.labels, len(self.classes))
        order = np.argsort(-fractions)
        return {self.classes[index]: float(fractions[index]) for index in order if fractions[index] > 0}

    def overlay(self, *, opacity: float = 0.6, legend: bool = True, background: bool = True) -> Image.Image:
        """Draw the classes in colour over the image, with a legend below.

        Args:
            opacity: opacity of the colours.
            legend: name the classes.
            background: paint the class that is called background.

        Raises:
            UserError: `background` is false, and no class is called background.
        """
        palette = self.palette if background else without_background(self.classes, self.palette)
        picture = Image.fromarray(overlay(self.image, self.labels, palette, opacity=opacity))
        if not legend:
            return picture
        return with_legend(picture, self.classes, palette, shares(self.labels, len(self.classes)))


def predict(
    model: Network,
    source: Source,
    *,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    confidence: bool = False,
) -> Prediction:
    """Label one image.

    Args:
        model: on the device to run on.
        source: a file, a PIL image, or an array uint8 (H, W, 3) or (H, W).
        config: how the image is resized and cut. Default: the protocol of the model.
        precision: precision of the model: fp32, bf16, fp16 (not on a CPU), or auto for the one its device is fast at.
            Default: fp32, or the precision of an exported model.
        confidence: compute the confidence map too.

    Raises:
        UserError: a file that cannot be read, an array that is not uint8 RGB or grey, or a precision that the device
            lacks.
    """
    image = to_rgb(source)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    certainty = None
    with computing_in(resolve_precision(model, precision), model.mean.device):
        if confidence:
            labels, share = image_confidence(model, tensor, config)
            certainty = share.cpu().numpy()
        else:
            labels = image_labels(model, tensor, config)
    classes, palette = classes_of(model)
    return Prediction(image=image, labels=labels.cpu().numpy(), classes=classes, palette=palette, confidence=certainty)
