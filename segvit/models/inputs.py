"""Refuse what a model cannot take, with what to type for it.

check_images("photo.jpg", 3)       # UserError: ... type segvit.predict(model, 'photo.jpg')
"""

from torch import Tensor

from segvit.errors import UserError


def check_images(images: object, bands: int) -> None:
    """Refuse anything but a batch of images of that number of bands.

    Raises:
        UserError: not a tensor (B, bands, H, W).
    """
    if not isinstance(images, Tensor):
        came, photo = (repr(images),) * 2 if isinstance(images, str) else (f"a {type(images).__name__}", "photo")
        raise UserError(
            f"model(...) takes a tensor (B, {bands}, H, W) and got {came}: to label photos, type "
            f"segvit.predict(model, {photo})"
        )
    if images.ndim != 4 or images.shape[1] != bands:
        batch = "; type images[None] for a batch of one" if images.ndim == 3 and images.shape[0] == bands else ""
        raise UserError(f"images of shape {tuple(images.shape)}: expected (B, {bands}, H, W){batch}")
