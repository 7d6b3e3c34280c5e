"""Record the inside of a model on one photo: attention of class tokens, masks, label maps, kept tokens.

    inside = segvit.pictures.look(model, "photo.jpg", classes=["sky", "car"])
    inside.similarity      # (S, C, h, w): similarity of each class with the map in each supervised output, in logits
    inside.masks           # (S, C, h, w): mask logits; in the plain structure, sums of the similarities
    inside.labels          # (S, y, x): label map of each output
    inside.tokens.kept     # (n, m): patches whose tokens QD keeps
    segvit.pictures.save_inside(inside, Path("seen"), format="pdf")

Letters: S supervised outputs, K classes, C recorded classes, H W photo, H' W' photo as the model sees it,
h w grid of the masks, n m grid of the patches, A attention heads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from segvit.data.bands.reading import as_picture
from segvit.data.bands.sources import to_pixels
from segvit.data.bands.tensors import to_tensor
from segvit.data.images import Source
from segvit.errors import UserError
from segvit.inference.compiled import uncompiled
from segvit.inference.label_map import label_map
from segvit.inference.network import Network, classes_of, reading_of
from segvit.inference.protocol import protocol_size
from segvit.models.decoder import LayerOutput
from segvit.models.downsampling import STRIDE, Kept
from segvit.models.modes import evaluating
from segvit.models.output import SegOutput
from segvit.models.segvit import SegViT
from segvit.pictures.inside.record import Gaze, Inside, Tokens
from segvit.pictures.paint import shares
from segvit.utils.resize import resize
from segvit.utils.sizes import fit_size
from segvit.utils.text import suggest
from segvit.weights.extend import only_group

SHOWN_CLASSES = 3
"""Default number of recorded classes: those that cover most of the photo."""
LONGEST = 4
"""Maximum longer side, in training crops, at which a model with a sliding window sees a photo at once."""
LABEL_SIDE = 1024
"""Maximum longer side of a label map in pixels. Each output takes one, and larger ones would be slow."""
SHOWN = {
    "backbone": ("taps", "num_layers", "num_prefix_tokens", "shrink_at", "downsampling"),
    "upsampling": ("shown_layers", "head_similarities"),
    "head": ("shown_layers", "head_similarities", "every_layer"),
}
"""Attributes of each part of a model that are read here."""
PLACES = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
"""Positions of the learned tokens whose attention is recorded, as fractions of the grid's height and width."""


def look(
    model: Network,
    photo: Source,
    *,
    classes: Sequence[str | int] | None = None,
    size: int | None = None,
    group: int = 0,
) -> Inside:
    """Run a model on one photo and record its masks, attention and tokens for some classes.

    The model sees the whole photo once. If its protocol predicts whole images, their size is used (scale 1, not
    mirrored). The last label map is then the one of `segvit.predict`, for photos of up to 1024 pixels.

    If its protocol uses a sliding window, the photo is resized. Its shorter side becomes the training crop's, and its
    longer side at most four times that. Labels merged from windows may then differ.

    If classes were added to the model, one group of them is recorded, as if the model had no other.

    Args:
        model: a SegViT on the device to run on.
        photo: a file, a PIL image, or a uint8 array (H, W, 3) or (H, W).
        classes: class names or numbers from 0. Default: the three that cover most of the photo.
        size: shorter side in pixels at which the model sees the photo. Default: as above.
        group: number of the group of classes, from 0: the classes that the model was first trained on.

    Raises:
        UserError: the model is exported and its inside is hidden, a class or the group is unknown, `classes` is empty,
            `size` is below 1, or the photo cannot be read or is too small for the shrunk structure.
    """
    network = uncompiled(model)
    if not isinstance(network, SegViT):
        source = getattr(model, "path", "the model")
        raise UserError(
            f"{source} is an exported model, whose layers cannot be recorded; give the .safetensors file that it was "
            "exported from"
        )
    network = only_group(network, group)
    names, palette = classes_of(network)
    chosen = None if classes is None else find_classes(classes, names)
    values = to_pixels(photo, reading_of(network)).values
    images = _at_size(values, network, size)
    pixels = as_picture(values)
    _check_shown(network)
    with torch.no_grad(), evaluating(network), _recorded(network) as record:
        output = network.forward(images)
        shown = _bounded(pixels.shape[:2])
        labels = np.stack([_labels(output, index, shown) for index in range(len(output.mask_logits))])
    if chosen is None:
        chosen = _most_seen(labels[-1], network.num_classes)
    tokens = _tokens(network, images, record.kept)
    rows = torch.tensor(chosen, device=images.device)
    grid = (output.padded_size[0] // network.map_cell, output.padded_size[1] // network.map_cell)
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
        gazes=_gazes(network, record, tokens),
    )


def _check_shown(model: SegViT) -> None:
    """Refuse a part that lacks an attribute which is read here."""
    for part, names in SHOWN.items():
        owner = getattr(model, part)
        lacking = [name for name in names if not hasattr(owner, name)]
        if part == "upsampling" and lacking == ["head_similarities"] and not owner.shown_layers():
            continue  # it has no attention to show
        if lacking and owner is not None:
            raise UserError(
                f"the {part} {model.parts[part]} cannot be recorded: it has no {', '.join(lacking)}; give it these "
                "attributes, as docs/extending.md describes"
            )


def find_classes(wanted: Sequence[str | int], names: Sequence[str]) -> tuple[int, ...]:
    """Return the class numbers of names or numbers from 0, without duplicates, in the given order.

    Raises:
        UserError: `wanted` is empty, or an entry is no class. The error suggests the nearest name.
    """
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not wanted:
        raise UserError("no classes; name one or more, or omit them to record those that cover most of the photo")
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


def _at_size(pixels: npt.NDArray[Any], model: SegViT, size: int | None) -> Tensor:
    """Resize a photo (H, W, N) to a batch (1, N, H', W') on the model's device."""
    height, width = pixels.shape[:2]
    if size is not None and size < 1:
        raise UserError(f"size {size}: give the shorter side in pixels, 1 or more")
    if size is None and model.protocol.mode == "whole":
        image = to_tensor(pixels)
        return resize(image, protocol_size(height, width, model.protocol))[None].to(model.mean.device)
    short = model.image_size if size is None else size
    rows, columns = fit_size(height, width, long=None if size else LONGEST * short, short=short)
    if pixels.dtype != np.uint8:
        image = to_tensor(pixels)[None].to(model.mean.device)
        return F.interpolate(image, (rows, columns), mode="bilinear", antialias=True)
    photo = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
    return to_tensor(np.asarray(photo))[None].to(model.mean.device)


@dataclass
class Record:
    """Outputs of the recorded layers in one forward pass."""

    head: list[LayerOutput] = field(default_factory=list)
    """Outputs of the layers that predict masks, one per supervised output."""
    upsampling: list[LayerOutput] = field(default_factory=list)
    """Output of the last layer over each map of QU; empty if there is no QU."""
    kept: list[Kept] = field(default_factory=list)
    """Patches that QD keeps; empty if no block drops tokens."""


@contextmanager
def _recorded(model: SegViT) -> Iterator[Record]:
    """Record layer outputs and kept tokens while the model runs inside the `with` block.

    Forward hooks are needed because the model returns only masks, in which the heads are already summed.
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
    """Return the height and width of the label maps for a photo of `size`."""
    return fit_size(size[0], size[1], long=min(LABEL_SIDE, max(size)), short=None)


def _labels(output: SegOutput, index: int, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the label map (H, W) of one supervised output."""
    one = output._replace(
        class_logits=output.class_logits[index : index + 1], mask_logits=output.mask_logits[index : index + 1]
    )
    return np.asarray(label_map(one, size)[0].cpu().numpy())


def _most_seen(labels: npt.NDArray[np.int64], num_classes: int) -> tuple[int, ...]:
    """Return the classes that cover most of a label map, at most SHOWN_CLASSES."""
    fractions = shares(labels, num_classes)
    order = sorted(range(num_classes), key=lambda k: (-fractions[k], k))
    return tuple(k for k in order[:SHOWN_CLASSES] if fractions[k] > 0)


def _tokens(model: SegViT, images: Tensor, seen: Sequence[Kept]) -> Tokens:
    """Return the token grids for images (1, 3, H', W')."""
    backbone = model.backbone
    grid = (-(-images.shape[2] // backbone.patch_size), -(-images.shape[3] // backbone.patch_size))
    kept = torch.ones(grid[0] * grid[1], dtype=torch.bool)
    if seen:
        kept = torch.zeros_like(kept).index_fill(0, seen[0].indices.flatten().cpu(), True)
    return Tokens(
        grid=grid,
        patch=backbone.patch_size,
        num_prefix=backbone.num_prefix_tokens,
        depth=backbone.num_layers,
        shrink_at=backbone.shrink_at,
        kept=kept.view(grid).numpy(),
        restored=model.upsampling is not None,
    )


def _gazes(model: SegViT, record: Record, tokens: Tokens) -> tuple[Gaze, ...]:
    """Return the attention of the learned tokens at PLACES over each map of QU."""
    rows, columns = tokens.grid
    places = tuple((int(y * rows), int(x * columns)) for y, x in PLACES)
    places = tuple(dict.fromkeys(places))
    gazes = []
    for block, layer in zip(model.backbone.taps, record.upsampling):
        restores = hasattr(model.backbone.downsampling, "restore")
        behind = tokens.shrink_at is not None and block > tokens.shrink_at and not restores
        index = torch.tensor([y * columns + x for y, x in places], device=layer.q.device)
        weights = model.upsampling.head_similarities(layer, index)[0].softmax(dim=2).mean(dim=0)
        grid, cell = tokens.grid, tokens.patch
        if behind and (kept := record.kept[0]).grid == tokens.shrunk:
            grid, cell = kept.grid, STRIDE * cell
        elif behind:  # no lattice: each weight at its patch, and nothing looks at the others
            everywhere = weights.new_zeros(len(weights), rows * columns)
            weights = everywhere.index_copy(1, kept.indices.flatten(), weights)
        gazes.append(Gaze(block=block, cell=cell, places=places, attention=weights.unflatten(1, grid).cpu().numpy()))
    return tuple(gazes)
