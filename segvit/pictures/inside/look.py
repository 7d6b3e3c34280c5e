"""Look inside a model at one photo: what class tokens see, masks that add up, tokens that are kept.

    inside = segvit.pictures.look(model, "photo.jpg", classes=["sky", "car"])
    inside.similarity      # (S, C, h, w): what each supervised output found for each class, before the sigmoid
    inside.masks           # (S, C, h, w): the mask logits; in the plain structure the sums of the above
    inside.labels          # (S, y, x): the label map that each output gives
    inside.tokens.kept     # (h, w): the tokens that go on behind QD
    segvit.pictures.save_inside(inside, Path("seen"), format="pdf")

Letters: S supervised outputs, K classes, C classes looked at, H W photo, H' W' photo as the model looks at it,
h w grid of the masks, n m grid of the patches, N tokens that are looked at, A attention heads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from segvit.data.images import Source, to_rgb
from segvit.errors import UserError
from segvit.inference.compiled import uncompiled
from segvit.inference.label_map import label_map
from segvit.inference.network import Network, classes_of
from segvit.inference.protocol import protocol_size
from segvit.models.decoder import LayerOutput
from segvit.models.downsampling import STRIDE, Kept
from segvit.models.output import SegOutput
from segvit.models.segvit import SegViT, evaluating
from segvit.pictures.inside.record import Gaze, Inside, Tokens
from segvit.pictures.paint import Pixels, shares
from segvit.utils.resize import fit_size, resize
from segvit.utils.text import suggest

SHOWN_CLASSES = 3
"""Classes that are looked at unless others are named: those that cover most of the photo."""
LONGEST = 4
"""Longer side of a photo that is looked at whole by a model of windows, in training crops."""
LABEL_SIDE = 1024
"""Longer side of a label map in pixels, at most: one for each output takes its time."""
PLACES = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
"""Where the learned tokens lie whose attention is kept: parts of the grid's height and width."""


def look(
    model: Network, photo: Source, *, classes: Sequence[str | int] | None = None, size: int | None = None
) -> Inside:
    """Run a model on one photo and keep what happened inside, for some classes.

    It is looked at whole, once. Where the model's protocol looks at images whole, it does so at that size (scale 1, not
    mirrored), and the last label map is that of `segvit.predict`, for photos up to 1024 pixels. Where the protocol cuts
    windows, the photo's shorter side becomes the training crop's (its longer one four of them at most), and labels that
    are put together from windows may differ.

    Args:
        model: a SegViT, on the device where it shall run.
        photo: a file, a PIL image, or an array uint8 (H, W, 3) or (H, W).
        classes: names or numbers from 0. Default: the three that cover most of the photo.
        size: shorter side in pixels at which the model looks. Default: as above.

    Raises:
        UserError: an exported model, which does not show its inside; a class that the model does not know, or none; a
            size below 1; or a photo that cannot be read, or is too small for a shrunk structure.
    """
    network = uncompiled(model)
    if not isinstance(network, SegViT):
        source = getattr(model, "path", "the model")
        raise UserError(
            f"{source} is an exported model: it gives its result and does not show its inside; give the .safetensors "
            "file that it was exported from"
        )
    names, palette = classes_of(network)
    chosen = None if classes is None else find_classes(classes, names)
    pixels = to_rgb(photo)
    images = _at_size(pixels, network, size)
    parts = [part for part in (network.head, network.upsampling) if part is not None]
    if lacking := [type(part).__name__ for part in parts if not hasattr(part, "shown_layers")]:
        raise UserError(f"{', '.join(lacking)}: a part that does not show its inside; it has no `shown_layers`")
    with torch.no_grad(), evaluating(network), _recorded(network) as record:
        output = network.forward(images)
        shown = _bounded(pixels.shape[:2])
        labels = np.stack([_labels(output, index, shown) for index in range(len(output.mask_logits))])
    if chosen is None:
        chosen = _most_seen(labels[-1], network.num_classes)
    tokens = _tokens(network, images, record.kept)
    rows = torch.tensor(chosen, device=images.device)
    grid = (output.mask_logits.shape[3], output.mask_logits.shape[4])
    heads = [network.head.head_similarities(layer, rows)[0].unflatten(2, grid) for layer in record.head]
    return Inside(
        photo=pixels,
        size=output.image_size,
        padded_size=output.padded_size,
        names=names,
        palette=palette,
        classes=chosen,
        outputs=tuple(network.head.output_names(network.backbone.taps)),
        summed=not network.head.every_layer,
        heads=torch.stack(heads).cpu().numpy(),
        masks=output.mask_logits[:, 0, rows].float().cpu().numpy(),
        labels=labels,
        tokens=tokens,
        gazes=_gazes(network, record.upsampling, tokens),
    )


def find_classes(wanted: Sequence[str | int], names: Sequence[str]) -> tuple[int, ...]:
    """Class numbers by names or numbers from 0, each once, in the order given.

    Raises:
        UserError: none given, or one that is neither; the nearest name is told.
    """
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not wanted:
        raise UserError("no classes; name one or more, or leave them out for those that cover most of the photo")
    found = []
    for item in wanted:
        text = str(item)
        if not isinstance(item, int) and text in names:
            found.append(names.index(text))
        elif text.isdecimal() and int(text) < len(names):
            found.append(int(text))
        else:
            shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            raise UserError(
                f"no class {text!r} in the model{suggest(text, names, cutoff=0.5)}; give a name, or a number "
                f"0..{len(names) - 1}; its classes: {shown}"
            )
    return tuple(dict.fromkeys(found))


def _at_size(pixels: Pixels, model: SegViT, size: int | None) -> Tensor:
    """A photo (H, W, 3) as the batch (1, 3, H', W') that is looked at, on the model's device."""
    height, width = pixels.shape[:2]
    if size is not None and size < 1:
        raise UserError(f"size {size}: give the shorter side in pixels, 1 or more")
    if size is None and model.protocol.mode == "whole":
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        return resize(image, protocol_size(height, width, model.protocol))[None].to(model.mean.device)
    short = model.image_size if size is None else size
    rows, columns = fit_size(height, width, long=None if size else LONGEST * short, short=short)
    photo = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(photo).transpose(2, 0, 1).copy())[None].to(model.mean.device)


@dataclass
class Record:
    """What parts of a model computed in one forward pass."""

    head: list[LayerOutput] = field(default_factory=list)
    """Of the layers that give a mask, one per supervised output."""
    upsampling: list[LayerOutput] = field(default_factory=list)
    """Of the last layer over each map of QU."""
    kept: list[Kept] = field(default_factory=list)
    """The patches that QD keeps; empty if no block shrinks."""


@contextmanager
def _recorded(model: SegViT) -> Iterator[Record]:
    """Record what layers compare, and what is kept, while the model runs inside the block.

    It takes forward hooks, since a model returns its masks alone, in which the heads are summed.
    """
    record = Record()
    hooks = []
    for part, seen in ((model.head, record.head), (model.upsampling, record.upsampling)):
        for layer in () if part is None else part.shown_layers():
            hooks.append(layer.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output)))
    if model.backbone.downsampling is not None:
        hooks.append(model.backbone.downsampling.register_forward_hook(lambda _, __, kept: record.kept.append(kept)))
    try:
        yield record
    finally:
        for hook in hooks:
            hook.remove()


def _bounded(size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the label maps of a photo of that size."""
    return fit_size(size[0], size[1], long=min(LABEL_SIDE, max(size)), short=None)


def _labels(output: SegOutput, index: int, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """The label map (H, W) that a supervised output gives by itself."""
    one = output._replace(
        class_logits=output.class_logits[index : index + 1], mask_logits=output.mask_logits[index : index + 1]
    )
    return np.asarray(label_map(one, size)[0].cpu().numpy())


def _most_seen(labels: npt.NDArray[np.int64], num_classes: int) -> tuple[int, ...]:
    """The classes that cover most of a label map, at most SHOWN_CLASSES."""
    fractions = shares(labels, num_classes)
    order = sorted(range(num_classes), key=lambda k: (-fractions[k], k))
    return tuple(k for k in order[:SHOWN_CLASSES] if fractions[k] > 0)


def _tokens(model: SegViT, images: Tensor, seen: Sequence[Kept]) -> Tokens:
    """The token grids for images (1, 3, H', W')."""
    backbone = model.backbone
    grid = (-(-images.shape[2] // backbone.patch_size), -(-images.shape[3] // backbone.patch_size))
    kept = torch.ones(grid[0] * grid[1], dtype=torch.bool)
    if seen:
        kept = torch.zeros_like(kept).index_fill(0, seen[0].indices.flatten().cpu(), True)
    return Tokens(
        grid=grid,
        patch=backbone.patch_size,
        num_prefix=backbone.num_prefix_tokens,
        depth=len(backbone.blocks),
        shrink_at=backbone.shrink_at,
        kept=kept.view(grid).numpy(),
        restored=model.upsampling is not None,
    )


def _gazes(model: SegViT, layers: Sequence[LayerOutput], tokens: Tokens) -> tuple[Gaze, ...]:
    """Where learned tokens at PLACES look, in each map of QU."""
    rows, columns = tokens.grid
    places = tuple((int(y * rows), int(x * columns)) for y, x in PLACES)
    places = tuple(dict.fromkeys(places))
    gazes = []
    for block, layer in zip(model.backbone.taps, layers):
        behind = tokens.shrink_at is not None and block > tokens.shrink_at
        index = torch.tensor([y * columns + x for y, x in places], device=layer.q.device)
        weights = model.upsampling.head_similarities(layer, index)[0].softmax(dim=2).mean(dim=0)
        gazes.append(
            Gaze(
                block=block,
                cell=tokens.patch * (STRIDE if behind else 1),
                places=places,
                attention=weights.unflatten(1, tokens.shrunk if behind else tokens.grid).cpu().numpy(),
            )
        )
    return tuple(gazes)
