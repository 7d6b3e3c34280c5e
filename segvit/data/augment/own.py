"""A transform of your own in the augmentation: torchvision's v2, Albumentations, or any function.

    own = open_own(None, "my_transforms:strong", num_classes=8)     # the setting augment.module
    image, labels = own(image, labels, seed)

It gets the finished crop, and must return one of the same size. The generators of torch, NumPy and Python are seeded
for each crop and restored after it. So the result depends on the crop's seed, and not on the process that loads it.

Letters: N bands, c side of a crop, K classes.
"""

import inspect
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from segvit.data.augment.mixing import Crop
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError

SHOWN = 8
"""Largest number of unknown label values that an error lists."""


class OwnTransform:
    """A transform of the user's own, called as it expects, seeded, and checked."""

    def __init__(self, function: Callable[..., Any], *, name: str, num_classes: int) -> None:
        """Set the transform.

        Args:
            function: called with `(image, mask)`, tv_tensors of (N, c, c) and int64 (c, c), and returns both. If
                it takes keywords instead, as Albumentations does, it is called with `image=` (c, c, N) and
                `mask=` uint8 (c, c), NumPy arrays, and returns a dict of both.
            name: its name, for errors.
            num_classes: number K of classes in the labels.
        """
        self.function = function
        self.name = name
        self.num_classes = num_classes
        self.by_keywords = takes_keywords(function)

    def __call__(self, image: Tensor, labels: Tensor, seed: int) -> Crop:
        """Transform an image (N, c, c), uint8 or float in 0..1, and labels int64 (c, c).

        Args:
            image: red, green, blue, or the bands of the model.
            labels: 0..K-1 or `IGNORE_INDEX`.
            seed: determines the result.

        Raises:
            UserError: the transform fails, or returns another kind, size or type, or labels that are no classes.
        """
        try:
            with seeded(seed):
                found = self._call(image, labels, seed)
        except Exception as error:  # of any type, since the code is not ours
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"{self.name} failed on a crop of {labels.shape[0]} x {labels.shape[1]} px: {type(error).__name__}: "
                f"{error} ({place.filename}:{place.lineno})"
            ) from error
        return self._checked(found, labels, bands=len(image), dtype=image.dtype)

    def _call(self, image: Tensor, labels: Tensor, seed: int) -> Any:
        """Call the transform in its own form, and return its image and mask."""
        if not self.by_keywords:
            return self.function(tv_tensors.Image(image), tv_tensors.Mask(labels))
        reseed(self.function, seed)
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        found = self.function(image=pixels, mask=labels.numpy().astype(np.uint8))
        return found["image"], found["mask"]

    def _checked(self, found: Any, before: Tensor, *, bands: int, dtype: torch.dtype) -> Crop:
        """Return the transform's image and labels as contiguous tensors of segvit's types.

        Raises:
            UserError: they do not fit.
        """
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise UserError(
                f"{self.name} returned {type(found).__name__}: return the image and its mask, as two values"
            )
        image, labels = (_tensor(part) for part in found)
        if image is not None and isinstance(found[0], np.ndarray) and image.ndim == 3:
            image = image.permute(2, 0, 1)
        side = tuple(before.shape)
        if image is None or image.dtype != dtype or tuple(image.shape) != (bands, *side):
            kind = f"(height, width, {bands})" if self.by_keywords else f"({bands}, height, width)"
            kind = f"{str(dtype).removeprefix('torch.')} {kind}"
            raise UserError(
                f"{self.name} returned the image as {_describe(found[0])}: return {kind} of {side[0]} x {side[1]} px, "
                "as it came; leave normalisation and resizing out"
            )
        whole_numbers = labels is not None and not labels.is_floating_point() and not labels.is_complex()
        if labels is None or not whole_numbers or tuple(labels.shape) != side:
            raise UserError(
                f"{self.name} returned the mask as {_describe(found[1])}: return whole numbers of {side[0]} x "
                f"{side[1]} px, as it came"
            )
        labels = labels.long()
        unknown = labels[((labels < 0) | (labels >= self.num_classes)) & (labels != IGNORE_INDEX)].unique().tolist()
        if unknown:
            values = ", ".join(map(str, unknown[:SHOWN])) + ", ..." * (len(unknown) > SHOWN)
            raise UserError(
                f"{self.name} returned a mask with {values}: its values must stay 0 to {self.num_classes - 1}, or "
                f"{IGNORE_INDEX} for ignored; interpolate masks by the nearest pixel, and fill them with {IGNORE_INDEX}"
            )
        return image.contiguous(), labels.contiguous()


def open_own(function: Callable[..., Any] | None, module: str | None, *, num_classes: int) -> OwnTransform | None:
    """Return the transform that the caller hands in or that `augment.module` names. None if there is neither.

    Raises:
        UserError: there are both, or the name cannot be imported.
    """
    if function is not None and module is not None:
        raise UserError(f"augment.module {module} and your own transform: leave one of them out")
    if function is not None:
        if not callable(function):
            raise UserError(f"transform is {type(function).__name__}: give a function of an image and a mask")
        named = getattr(function, "__qualname__", type(function).__qualname__)
        return OwnTransform(function, name=f"your transform {named}", num_classes=num_classes)
    if module is not None:
        return OwnTransform(imported(module), name=f"augment.module {module}", num_classes=num_classes)
    return None


def imported(name: str) -> Callable[..., Any]:
    """Import a callable by its name, `package.module:function`. Modules in the current folder are found too.

    Raises:
        UserError: the name has another form, its module cannot be imported, or it is no callable.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute or Path(module).suffix == ".py":
        raise UserError(
            f"augment.module {name!r}: give package:function, such as my_transforms:strong for `strong` in "
            "my_transforms.py"
        )
    if (here := str(Path.cwd())) not in sys.path:  # a console script has its own folder there instead
        sys.path.append(here)
    try:
        found: Any = import_module(module)
    except (Exception, SystemExit) as error:  # of any type, since the code is not ours
        raise UserError(
            f"augment.module {name!r}: {module} cannot be imported ({type(error).__name__}: {error}); install it, or "
            "start segvit in the folder of that file"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UserError(f"augment.module {name!r}: {module} has no {attribute}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"augment.module {name!r} is {type(found).__name__}: give a function of an image and a mask")
    if isinstance(found, type):
        raise UserError(
            f"augment.module {name!r} is a class: give an instance, such as `steps = {attribute}()` in {module}"
        )
    function: Callable[..., Any] = found
    return function


def takes_keywords(function: Callable[..., Any]) -> bool:
    """True if a transform takes `image=` and `mask=`, as those of Albumentations do, and not two positions."""
    if isinstance(function, nn.Module):  # torchvision's v2
        return False
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins may have none
        return False
    positions = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    keywords = {each.name for each in parameters if each.kind == each.KEYWORD_ONLY}
    any_keyword = any(each.kind == each.VAR_KEYWORD for each in parameters)
    return len(positions) < 2 and (any_keyword or {"image", "mask"} <= keywords)


def reseed(function: Callable[..., Any], seed: int) -> None:
    """Seed the generators that a transform of Albumentations holds itself, if it has any."""
    if hasattr(function, "set_random_state"):  # unlike a seed, never combined with one of the worker
        function.set_random_state(np.random.default_rng(seed), random.Random(seed))
    elif hasattr(function, "set_random_seed"):
        function.set_random_seed(seed % 2**32)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch (on the CPU), NumPy and Python inside a block, and restore them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002, transforms use it
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def _tensor(part: Any) -> Tensor | None:
    """Return an array or a tensor as a plain tensor on the CPU, or None if it is neither."""
    if isinstance(part, Tensor):
        return part.detach().cpu().as_subclass(Tensor)
    if isinstance(part, np.ndarray) and part.dtype.kind in "uifb":
        return torch.from_numpy(np.ascontiguousarray(part))
    return None


def _describe(part: Any) -> str:
    """Return the type, and the values' type and the shape if there are any."""
    if isinstance(part, Tensor | np.ndarray):
        return f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}"
    return type(part).__name__
