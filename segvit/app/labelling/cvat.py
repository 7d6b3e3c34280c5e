"""Label images for CVAT, as a serverless function of it does: one image in, masks of all regions out.

    function = CvatFunction("best.safetensors")
    function.answer({"image": "BASE64", "threshold": 0.5})

CVAT sends each image of a job to a function that runs in Nuclio. `segvit cvat` writes the folder of such a function.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segvit.app.label_photo import load_models, pixels_for
from segvit.app.labelling.encoded import decoded
from segvit.app.limits import Limits
from segvit.app.messages import Setup
from segvit.app.photo import open_photo
from segvit.config import Device
from segvit.errors import UserError
from segvit.inference.network import reading_of
from segvit.prediction.annotations.annotated import trace
from segvit.prediction.annotations.cvat_shapes import cvat_shapes

NAME = "image"


class CvatFunction:
    """A loaded model that answers CVAT.

    Args:
        model: model file, repository of the Hugging Face Hub, or a name from the zoo.
        device: device to run on.
        limits: limits of an image.

    Raises:
        UserError: the model cannot be loaded, or takes no photos.
    """

    def __init__(self, model: str, *, device: Device = "auto", limits: Limits = Limits()) -> None:
        (self._model,) = load_models(Setup(models=(model,), device=device))
        self._limits = limits

    @torch.inference_mode()
    def answer(self, body: object) -> list[dict[str, Any]]:
        """Return the masks of an image.

        Args:
            body: mapping with the image in base64, and maybe the smallest confidence of a mask, 0..1.

        Raises:
            UserError: the body is malformed, or the image cannot be read.
        """
        if not isinstance(body, Mapping):
            raise UserError("the body of the request is no object: send {'image': BASE64}")
        threshold = _threshold(body.get("threshold"))
        text = body.get("image")
        if not isinstance(text, str) or not text:
            raise UserError("the request has no image: send {'image': BASE64}")
        content = decoded(text, self._limits)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, NAME)
            path.write_bytes(content)
            photo = open_photo(path, name=NAME, limits=self._limits)
            reading = reading_of(self._model.network)
            image = pixels_for(reading, path, np.asarray(photo.image), name=NAME)
        result, _ = self._model.look(image, confidence=True)
        item = trace(
            result.labels,
            result.classes,
            image=Path(NAME),
            stem=NAME,
            tolerance=0,
            confidence=result.confidence,
        )
        return cvat_shapes(item, result.classes, threshold=threshold)


def _threshold(value: object) -> float:
    """Return the smallest confidence of a mask.

    Raises:
        UserError: it is no number from 0 to 1.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"threshold {str(value)[:40]}: give a number from 0 to 1")
    return float(value)
