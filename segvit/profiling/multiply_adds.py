"""Count the multiply-adds and parameters of a model at an image size, part by part.

    segvit.profile(model, (640, 640)).multiply_adds

PyTorch's own counter watches one forward on fake tensors, which have shapes but no values. So any size takes a second
or two and no memory.

Counted: Linear layers, convolutions, both products of every attention, and the masks (queries times keys). For the
scores (K, H, W): the K x Q product of classes and masks (1 per mask pixel with a presence head), and 4 per up-sampled
mask pixel. Not counted: norms, activations, softmax, additions, and resizing learned tokens to another grid. A model
whose tokens merge by a threshold is counted without merging, since their number depends on the image
(segvit/profiling/merging.py measures it).

Letters: K classes, Q queries, H W image.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from segvit.errors import UserError
from segvit.inference.compiled import uncompiled
from segvit.inference.label_map import image_views
from segvit.inference.tiles import Composition
from segvit.models.backbone import PlainViT
from segvit.models.linear_head import LinearHead
from segvit.models.merging.token_merging import merges_by_threshold
from segvit.models.output import SegOutput, is_presence
from segvit.models.scores import groups_of
from segvit.models.segvit import SegViT

T = TypeVar("T")

TOTAL = "Global"
"""Name of the total over all modules in PyTorch's counter."""

OTHER_PARTS = {"up-sampling": "upsampling", "ATM": "head", "mask upscaler": "upscaler"}
"""Parts after the backbone, and the model's attributes that hold them."""

UPSAMPLING = 4
"""Multiply-adds of an element up-sampled bilinearly, one per neighbour."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a model and its cost."""

    name: str
    multiply_adds: int
    parameters: int

    @property
    def flops(self) -> int:
        """Two per multiply-add."""
        return 2 * self.multiply_adds


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Cost of a model on one image; the parts sum to the totals."""

    size: tuple[int, int]
    """(H, W) of the image in pixels."""
    parts: tuple[Part, ...]
    """Parts in the order in which they run."""
    predict_multiply_adds: int
    """Multiply-adds of `model.predict` at most: the last output only, masks up-sampled by two products, every class at
    every pixel. On most images it needs fewer (inference/bounds.py)."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the forward with every supervised output, and of the scores (K, H, W)."""
        return sum(part.multiply_adds for part in self.parts)

    @property
    def flops(self) -> int:
        """Two per multiply-add."""
        return 2 * self.multiply_adds

    @property
    def predict_flops(self) -> int:
        """Two per multiply-add."""
        return 2 * self.predict_multiply_adds

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole model, frozen ones included."""
        return sum(part.parameters for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """Return parts and totals as plain values."""

        def costs(item: Part | Profile) -> dict[str, int]:
            return {"parameters": item.parameters, "multiply_adds": item.multiply_adds, "flops": item.flops}

        return {
            "size": list(self.size),
            "parts": [{"name": part.name, **costs(part)} for part in self.parts],
            **costs(self),
            "predict_multiply_adds": self.predict_multiply_adds,
            "predict_flops": self.predict_flops,
        }


def profile(model: SegViT, size: int | tuple[int, int]) -> Profile:
    """Count the multiply-adds and parameters of a model on one image, part by part (docs/method.md section 3).

    The parts are the backbone, the up-sampling (if the model has one), ATM (the head), the upscaler of the masks (if
    there is one) and the scores at the size of the image. If a block shrinks the tokens, the backbone is two parts:
    before that block, and from it on. Anything else in a model of your own is the part "rest". The model is not
    changed; its weights are neither moved nor copied. If tokens merge by a threshold, the result is an upper bound:
    that of the model without merging.

    Examples:
        >>> import segvit
        >>> cost = segvit.profile(segvit.load_model("best.safetensors"), (48, 64))
        >>> cost.multiply_adds > 0
        True
        >>> [part.name for part in cost.parts]
        ['backbone', 'ATM', 'scores']

    Args:
        model: a model on any device, the meta device included.
        size: (H, W) of the image in pixels, or the side of a square. It need not be a multiple of the patch.

    Raises:
        UserError: the size is below one pixel, or below what the model takes.
    """
    size = (size, size) if isinstance(size, int) else size
    if len(size) != 2 or min(size) < 1:
        given = " x ".join(map(str, size))
        raise UserError(f"size {given}: give height and width, 1 pixel or more each, such as 640 640")
    model = uncompiled(model)
    # A fused attention kernel may have no formula and then counts as nothing; MATH makes it two matrix products.
    with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        twin = fake_twin(model)
        images = torch.empty((1, len(model.mean), *size), dtype=torch.uint8, device="cpu")
        output, forward = _count(lambda: twin(images))
        _, predict = _count(lambda: _score_in_tiles(twin(images, deep=False)))
    root = type(model).__name__  # the counter's name of the outermost module
    parts = _backbone_parts(model.backbone, forward, f"{root}.backbone")
    for name, attribute in OTHER_PARTS.items():
        if (module := getattr(model, attribute)) is not None:
            spent = forward.get(f"{root}.{attribute}", 0)  # a part without products is not listed
            name = "linear head" if isinstance(module, LinearHead) else name
            parts.append(Part(name=name, multiply_adds=spent, parameters=_num_parameters(module)))
    if len(model.added):
        spent = sum(forward.get(f"{root}.added.{index}", 0) for index in range(len(model.added)))
        parts.append(Part(name="added classes", multiply_adds=spent, parameters=_num_parameters(model.added)))
    rest = Part(
        name="rest",
        multiply_adds=forward[TOTAL] - sum(part.multiply_adds for part in parts),
        parameters=_num_parameters(model) - sum(part.parameters for part in parts),
    )
    if rest.multiply_adds or rest.parameters:
        parts.append(rest)
    scores = sum(_score_costs(group, size) for group in groups_of(output))
    parts.append(Part(name="scores", multiply_adds=scores, parameters=0))
    return Profile(size=(size[0], size[1]), parts=tuple(parts), predict_multiply_adds=predict[TOTAL])


def _score_costs(output: SegOutput, size: tuple[int, int]) -> int:
    """Return the multiply-adds of the scores of one group of classes."""
    elements = output.mask_logits.shape[2] * size[0] * size[1]  # (Q, H, W)
    weights = 1 if is_presence(output.class_logits) else output.class_logits.shape[3] - 1
    return (weights + UPSAMPLING) * elements


def _score_in_tiles(output: SegOutput) -> None:
    """Compute the label map without bounds, since their effect depends on the image."""
    for view in image_views(output):
        for _ in Composition([view], output.image_size).tiles():
            pass


def _num_parameters(*modules: nn.Module) -> int:
    """Return the number of parameters of modules, counting each once."""
    unique = {id(parameter): parameter.numel() for module in modules for parameter in module.parameters()}
    return sum(unique.values())


def fake_twin(model: SegViT) -> SegViT:
    """Copy a model in evaluation mode, with fake tensors in place of its own (`deepcopy` finds them in its memo).

    How many tokens merge by a threshold depends on the image, so none merge in the copy: it costs the most.
    """
    fakes: dict[int, Any] = {}
    for parameter in model.parameters():
        fake = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
        fakes[id(parameter)] = nn.Parameter(fake, requires_grad=False)
    for buffer in model.buffers():
        fakes[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
    twin = copy.deepcopy(model, fakes).eval()
    if merges_by_threshold(twin.backbone):
        twin.backbone.merging = None
    return twin


def _count(run: Callable[[], T]) -> tuple[T, dict[str, int]]:
    """Return the result of `run` and its multiply-adds, by the name of the module and in total."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return result, {name: sum(spent.values()) // 2 for name, spent in counter.get_flop_counts().items()}


def _backbone_parts(backbone: nn.Module, spent: dict[str, int], name: str) -> list[Part]:
    """Return the backbone as one part, or as two if a block shrinks the tokens; that block begins the second."""
    whole = Part(name="backbone", multiply_adds=spent.get(name, 0), parameters=_num_parameters(backbone))
    if not isinstance(backbone, PlainViT) or backbone.shrink_at is None:
        return [whole]
    blocks = [f"{name}.blocks.{index}" for index in range(backbone.shrink_at)]
    shrunk = {
        id(parameter): parameter.numel()
        for parameter_name, parameter in backbone.named_parameters()
        if (layer := backbone.layer_of(parameter_name)) is None or layer > backbone.shrink_at
    }
    before = Part(
        name="backbone before QD",
        multiply_adds=sum(spent.get(part, 0) for part in (f"{name}.patch_embed.proj", *blocks)),
        parameters=whole.parameters - sum(shrunk.values()),
    )
    behind = Part(
        name="backbone from QD on",
        multiply_adds=whole.multiply_adds - before.multiply_adds,
        parameters=sum(shrunk.values()),
    )
    return [before, behind]
