"""Refuse what a model cannot take, with what to type for it.

check_images("photo.jpg")       # UserError: ... type segvit.predict(model, 'photo.jpg')
"""

from torch import Tensor

from segvit.errors import UserError


def check_images(images: object) -> None:
    """Refuse anything but a batch of images.

    Raises:
        UserError: not a tensor (B, 3, H, W).
    """
    if not isinstance(images, Tensor):
        came, photo = (repr(images),) * 2 if isinstance(images, str) else (f"a {type(images).__name__}", "photo")
        raise UserError(
            f"model(...) takes a tensor (B, 3, H, W) and got {came}: to label photos, type "
            f"segvit.predict(model, {photo})"
        )
    if images.ndim != 4 or images.shape[1] != 3:
        batch = "; type images[None] for a batch of one" if images.ndim == 3 and images.shape[0] == 3 else ""
        raise UserError(f"images of shape {tuple(images.shape)}: expected (B, 3, H, W){batch}")
