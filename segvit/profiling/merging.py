"""Find the threshold of token merging on a user's images: measured multiply-adds and mIoU, by bisection.

found = find_merging(model, dataset, max_loss=0.005)      # or budget=0.75
rich.print(found.table())
faster = with_merging(model, threshold=0.84)              # without a search

Everything that an evaluation runs is counted, with the tokens that each image keeps, under the model's own protocol.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from torchvision import tv_tensors

from segvit.data.sample import Sample, Samples
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.evaluation.evaluate import evaluate
from segvit.inference.network import classes_of, image_for
from segvit.inference.protocol import image_labels
from segvit.models.backbone import PlainViT
from segvit.models.merging.settings import default_merge_at, resolve_merging
from segvit.models.modes import evaluating
from segvit.models.segvit import SegViT
from segvit.profiling.info import MERGE_FIND
from segvit.utils.progress import Progress
from segvit.utils.text import percent_cell, percentage

if TYPE_CHECKING:
    from rich.table import Table

    from segvit.utils.tables import Fitted

LOWEST, NONE, PER_UNIT = 50, 100, 100
"""Thresholds searched, in hundredths: from 0.5 to 1, at which none merge."""
MAX_LOSS = 0.005
"""Loss of mean IoU that is kept if no goal is given."""


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Return the operations of an attention of these shapes, whatever its other arguments."""
    return int(sdpa_flop_count(query, key, value))


FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
"""Kernel that PyTorch's counter does not know, and its formula."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Cost and scores at one threshold."""

    threshold: float | None
    """None: without merging, or with fixed shares."""
    shares: tuple[float, float]
    """Shares of the windows and of the pairs that merged, means over the images."""
    multiply_adds: float
    """Multiply-adds of an image, mean over the images."""
    miou: float
    """Mean IoU, 0..1."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The merging that was found, and all that were measured."""

    model: SegViT
    """Model with the merging: same weights, other settings."""
    rows: tuple[Measured, ...]
    """Measurements: without merging, then by falling threshold."""
    chosen: Measured
    """Measurement of `model`."""
    images: int
    """Number of images measured on."""

    @property
    def share(self) -> float:
        """Multiply-adds as a share of those without merging."""
        return self.chosen.multiply_adds / self.rows[0].multiply_adds

    @property
    def loss(self) -> float:
        """Mean IoU without merging less that with it."""
        return self.rows[0].miou - self.chosen.miou

    def save(self, path: str | Path) -> None:
        """Write the model with its settings, and the measurement in its header.

        Raises:
            UserError: the file cannot be written.
        """
        self.model.extra[MERGE_FIND] = {"share": self.share, "loss": self.loss, "images": self.images}
        self.model.save(path)

    def table(self) -> "Fitted":
        """Return the measurements as a table for a terminal."""
        from segvit.utils.tables import Fitted

        return Fitted(partial(_draw, self), levels=2)


def with_merging(
    model: SegViT,
    *,
    threshold: float | None = None,
    shares: tuple[float, float] | None = None,
    at: tuple[int, int] | None = None,
) -> SegViT:
    """Return a model with other settings of merging that shares the weights of `model`.

    Args:
        model: model of `create_model`, which is not changed.
        threshold, shares, at: `ModelConfig.merge_threshold`, `merge_shares` and `merge_at`; without the first two,
            none merge.

    Raises:
        UserError: the parts of the model are your own, or see `resolve_merging`.
    """
    if model.config is None:
        raise UserError(
            "this model has parts of your own: hand segvit.models.merging.token_merging.TokenMerging to the backbone"
        )
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    other = copy.deepcopy(model, shared).eval()
    backbone, config = other.backbone, model.config
    other.config = replace(config, merge_threshold=threshold, merge_shares=shares, merge_at=at)
    depth = len(backbone.blocks)
    backbone.merging = resolve_merging(
        config.structure, backbone.taps, depth, threshold=threshold, shares=shares, at=at
    )
    return other


def find_merging(
    model: SegViT,
    dataset: Samples,
    *,
    budget: float | None = None,
    max_loss: float | None = None,
    fixed: bool = False,
    at: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Found:
    """Find the threshold of a model's token merging on a dataset, to a hundredth.

    Args:
        model: model of `create_model` with the structure plain; it is not changed. A merging of its own is replaced.
        dataset: images and labels.
        budget: share of the multiply-adds that may be left; the highest threshold that keeps it is taken.
        max_loss: mean IoU (0..1) that may be lost; the lowest threshold that keeps it is taken. Default: `MAX_LOSS`, if
            there is no budget.
        fixed: merge fixed shares in place of a threshold, those that the threshold merges on average.
        at: blocks behind which tokens merge. Default: see `ModelConfig.merge_at`.
        progress: called after each image of all evaluations.

    Raises:
        UserError: budget and loss are both given, or out of range; the parts of the model are your own, or its
            structure shrinks; or no threshold keeps the goal.
    """
    _check_goal(budget, max_loss)
    if budget is None and max_loss is None:
        max_loss = MAX_LOSS
    with_merging(model, threshold=1.0, at=at)  # refuses before the work
    at = at or default_merge_at(len(model.backbone.blocks))
    num_rounds, done = 2 + (NONE - LOWEST).bit_length() + fixed, 0

    def measured(**settings: Any) -> tuple[SegViT, Measured]:
        nonlocal done
        candidate = with_merging(model, **settings)
        before, done = done * len(dataset), done + 1
        total = num_rounds * len(dataset)
        row = _measure(candidate, dataset, (lambda seen, _: progress(before + seen, total)) if progress else None)
        return candidate, row

    _, base = measured()
    rows: dict[int, tuple[SegViT, Measured]] = {}

    def keeps(hundredths: int) -> bool:
        rows[hundredths] = measured(threshold=hundredths / PER_UNIT, at=at)
        row = rows[hundredths][1]
        if budget is not None:
            return row.multiply_adds <= budget * base.multiply_adds
        assert max_loss is not None
        return base.miou - row.miou <= max_loss

    # A budget is kept from some threshold down, a loss from some threshold up.
    low, high = LOWEST, NONE
    if budget is not None and not keeps(LOWEST):
        share = rows[LOWEST][1].multiply_adds / base.multiply_adds
        raise UserError(
            f"--budget {budget:g}: even at threshold {LOWEST / PER_UNIT:g}, {percentage(share, '.1f')} of the "
            "multiply-adds are left; give a larger budget, or merge behind earlier blocks (--at)"
        )
    while high - low > 1:
        middle = (low + high) // 2
        if keeps(middle) == (budget is not None):
            low = middle
        else:
            high = middle
    best = low if budget is not None else high
    if best not in rows:  # a loss that only no merging keeps
        raise UserError(
            f"--max-loss {max_loss:g}: every threshold up to {(NONE - 1) / PER_UNIT:g} loses more; give a larger loss, "
            "or merge behind later blocks (--at)"
        )
    found, chosen = rows[best]
    listed = [base, *(rows[key][1] for key in sorted(rows, reverse=True))]
    if fixed:
        shares = (round(chosen.shares[0], 3), round(chosen.shares[1], 3))
        found, chosen = measured(shares=shares, at=at)
        listed.append(chosen)
    return Found(model=found, rows=tuple(listed), chosen=chosen, images=len(dataset))


class OwnLabels:
    """Photos without masks as a dataset: their labels are those of the model itself, without merging.

    The mIoU on them is the agreement with the model, and 1 without merging.

    Args:
        model: model without merging.
        photos: image files.
    """

    def __init__(self, model: SegViT, photos: Sequence[Path]) -> None:
        self.model, self.photos = with_merging(model), photos
        self.labels: dict[int, torch.Tensor] = {}

    @property
    def spec(self) -> DatasetSpec:
        """Classes and colours of the model."""
        classes, palette = classes_of(self.model)
        own = tuple(range(len(classes)))
        return self.model.spec or DatasetSpec(name="photos", classes=classes, palette=palette, raw_ids=own)

    def __len__(self) -> int:
        return len(self.photos)

    @torch.no_grad()
    def read(self, index: int) -> Sample:
        """Read photo number `index`, and label it the first time."""
        image = image_for(self.model, self.photos[index])
        if index not in self.labels:
            with evaluating(self.model):
                self.labels[index] = image_labels(self.model, image, self.model.protocol).cpu()
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(self.labels[index]), self.photos[index].stem)

    def describe(self, index: int) -> str:
        """Return the file of photo number `index`."""
        return str(self.photos[index])


def _check_goal(budget: float | None, max_loss: float | None) -> None:
    """Refuse two goals, and values out of range.

    Raises:
        UserError: as above.
    """
    if budget is not None and max_loss is not None:
        raise UserError(f"--budget {budget:g} and --max-loss {max_loss:g}: leave one of them out")
    if budget is not None and not 0 < budget < 1:
        raise UserError(f"--budget {budget:g}: give a share of the multiply-adds between 0 and 1, such as 0.75")
    if max_loss is not None and not 0 <= max_loss < 1:
        raise UserError(f"--max-loss {max_loss:g}: give a difference of mIoU between 0 and 1, such as 0.005")


def _measure(model: SegViT, dataset: Samples, progress: Callable[[int, int], None] | None) -> Measured:
    """Evaluate a model, and count what it computes and what merges."""
    with counting(model) as seen:
        # The labels of `OwnLabels` are computed in the thread that reads, where nothing is counted.
        result = evaluate(model, dataset, progress=progress)
    merging = model.backbone.merging
    assert result.miou is not None or not len(dataset)
    return Measured(
        threshold=None if merging is None else merging.threshold,
        shares=seen.shares,
        multiply_adds=seen.flops / 2 / len(dataset),
        miou=result.miou or 0.0,
    )


class _Seen:
    """Candidates and merges of both kinds, and floating-point operations, of everything that ran."""

    def __init__(self) -> None:
        self.candidates, self.merges, self.flops = [0, 0], [0, 0], 0

    @property
    def shares(self) -> tuple[float, float]:
        """Shares of the candidates that merged."""
        first, second = (made / max(all, 1) for made, all in zip(self.merges, self.candidates, strict=True))
        return first, second


@contextmanager
def counting(model: SegViT) -> Iterator[_Seen]:
    """Count in this thread while the model runs inside the `with` block."""
    seen, backbone = _Seen(), model.backbone
    assert isinstance(backbone, PlainViT)

    def note(_: Any, given: tuple[Any, ...], settings: dict[str, Any], made: Any) -> None:
        tokens, before, grid = given
        sizes, batch = made[1].sizes, len(tokens)
        left = int((sizes > 0).sum())
        if settings["block"] == backbone.merging.at[0]:  # type: ignore[union-attr]  # has merging, else no hook
            seen.candidates[0] += batch * (grid[0] // 2) * (grid[1] // 2)
            seen.merges[0] += (batch * grid[0] * grid[1] - left) // 3
        else:
            counts = (before.sizes > 0).sum(dim=1)
            seen.candidates[1] += int(((counts + 1) // 2).sum())
            seen.merges[1] += int(counts.sum()) - left

    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)  # else PyTorch's counter looks for gradients, which evaluation does not have
    hook = None if backbone.merging is None else backbone.merging.register_forward_hook(note, with_kwargs=True)
    try:
        with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
            yield seen
        seen.flops = counter.get_total_flops()
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        if hook is not None:
            hook.remove()


def _draw(found: Found, level: int, *, ascii: bool) -> "Table":
    """Draw the table of thresholds; at level 1 without the shares."""
    from rich.table import Table

    base = found.rows[0]
    headings = ["merging", "windows", "pairs", "multiply-adds (G)", "share", "mIoU", "loss"]
    table = Table(title=f"token merging on {found.images} images")
    for place, heading in enumerate(headings):
        if not (level and 1 <= place <= 2):
            table.add_column(heading, justify="left" if not place else "right", no_wrap=True)
    for row in found.rows:
        name = "none" if row is base else "fixed" if row.threshold is None else f"{row.threshold:.2f}"
        cells = [name + " <" * (row is found.chosen), *(percent_cell(share) for share in row.shares)]
        cells += [f"{row.multiply_adds / 1e9:,.2f}", percent_cell(row.multiply_adds / base.multiply_adds)]
        cells += [f"{row.miou:.4f}", f"{base.miou - row.miou:.4f}"]
        table.add_row(*(cells[:1] + cells[3:] if level else cells))
    return table
