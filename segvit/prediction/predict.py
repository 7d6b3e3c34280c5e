"""Label a photo or several, with a model in memory or by its name.

result = segvit.predict("best.safetensors", "photo.jpg")
results = segvit.predict(model, ["a.jpg", "b.jpg"])
"""

from pathlib import Path
from typing import Any, overload

from segvit.config import EvalConfig, PrecisionChoice
from segvit.inference.network import Network
from segvit.prediction.photo import P, Photo, Photos, Prediction, label_photos
from segvit.utils.keywords import refuse_others
from segvit.weights.load import load_network

__all__ = ["Prediction", "predict"]


@overload
def predict(
    model: Network | str | Path,
    source: Photo,
    *,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    confidence: bool = False,
) -> Prediction: ...


@overload
def predict(
    model: Network | str | Path,
    source: Photos[P],
    *,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    confidence: bool = False,
) -> list[Prediction]: ...


def predict(
    model: Network | str | Path,
    source: Photo | Photos[P],
    *,
    config: EvalConfig | None = None,
    precision: PrecisionChoice | None = None,
    confidence: bool = False,
    **others: Any,
) -> Prediction | list[Prediction]:
    """Label a photo, or several.

    Examples:
        >>> import segvit
        >>> model = segvit.load_model("best.safetensors")
        >>> result = segvit.predict(model, "photo.jpg")
        >>> result.labels.shape, result.classes
        ((48, 64), ('background', 'person'))
        >>> picture = result.overlay()  # with the legend below
        >>> len(segvit.predict(model, ["photo.jpg", "photo.jpg"]))
        2

    Args:
        model: a model, on the device to run on, or the name of one as in `segvit.load_model`. A name is loaded at every
            call.
        source: a file, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W), with values uint8, or float
            in 0..1; or a list of these.
        config: how the image is resized and cut. Default: the protocol of the model.
        precision: precision of the model: fp32, bf16, fp16 (not on a CPU), or auto for the one its device is fast at.
            Default: fp32, or the precision of an exported model.
        confidence: compute the confidence map too.
        others: refused, with what to write.

    Returns:
        The result of a photo, or a list with the result of each photo of a list.

    Raises:
        UserError: a file that cannot be read, an array or a tensor that is no photo, a precision that the device lacks,
            or an argument that does not exist.
    """
    refuse_others("segvit.predict", predict, others)
    network = load_network(model, device="cpu") if isinstance(model, str | Path) else model
    return label_photos(network, source, config=config, precision=precision, confidence=confidence)
