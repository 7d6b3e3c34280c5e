"""Every formula of the method against a slow and obvious statement of it, which the one file holds for the model."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import segvit.fused_losses as losses_module
import segvit.inference.tiles as tiles_module
from segvit.config import LossConfig, ModelConfig, OptimConfig, Structure
from segvit.errors import UserError
from segvit.evaluation.metrics import ConfusionMatrix
from segvit.fused_losses import _focal_and_dice, _Target, fused_mask_losses
from segvit.inference.label_map import label_map
from segvit.inference.tiles import Composition
from segvit.inference.windows import Windows, look, window_starts
from segvit.losses import IGNORE_INDEX, MaskLosses, Normalizers, criterion, normalizers, plain_mask_losses
from segvit.models.atm import ATMHead
from segvit.models.create import create_model
from segvit.models.decoder import Attention, similarity
from segvit.models.output import SegOutput
from segvit.models.positions import resize_tokens
from segvit.models.scores import scores
from segvit.models.segvit import SegViT
from segvit.models.upsampling import QueryUpsampling
from segvit.training.optim import create_optimizer, learning_rate_factor, parameter_groups, set_learning_rate
from tests.helpers.one_file import as_table, decoder_stages, one_file, slow_losses, slow_scores

TOLERANCE = 1e-5


def assert_close(ours: Tensor, reference: Tensor, tolerance: float = TOLERANCE) -> None:
    """The largest difference over the largest value."""
    assert ours.shape == reference.shape
    scale = reference.abs().max().clamp(min=1e-30)
    assert float((ours.double() - reference.double()).abs().max() / scale) <= tolerance


# Attention to mask ----------------------------------------------------------------------------------------------------


def stirred(module: nn.Module) -> None:
    """Random weights that matter, in evaluation mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    module.eval()


@torch.no_grad()
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("num_stages", [1, 2])
@pytest.mark.parametrize("every_layer", [False, True], ids=["last layers", "every layer"])
@pytest.mark.parametrize("in_dim", [6, None], ids=["projected", "as it comes"])
def test_attention_to_mask(in_dim: int | None, every_layer: bool, num_stages: int, num_layers: int) -> None:
    torch.manual_seed(0)
    decoder: dict[str, Any] = {"in_dim": in_dim, "dim": 8, "num_layers": num_layers, "num_heads": 2}
    head = ATMHead(num_stages=num_stages, num_classes=3, every_layer=every_layer, **decoder)
    stirred(head)
    slow = one_file.ATMHead(decoder_stages(num_stages, **decoder), 3, 8, every_layer)
    slow.eval().load_state_dict(head.state_dict())
    features = [torch.randn(2, in_dim or 8, 2, 3) for _ in range(num_stages)]
    outputs = num_stages * (num_layers if every_layer else 1)
    deep, expected = head(features), slow(features)
    assert deep[0].shape == (outputs, 2, 3, 4) and deep[1].shape == (outputs, 2, 3, 2, 3)
    for ours, reference, last in zip(deep, expected, head(features, deep=False), strict=True):
        for output in range(outputs):
            assert_close(ours[output], reference[output])
        assert torch.equal(last, ours[-1:])


@torch.no_grad()
@pytest.mark.parametrize("grid", [(2, 3), (3, 5), (2, 2)], ids=["native", "larger", "smaller"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_upsampling(num_layers: int, grid: tuple[int, int]) -> None:
    """Learned tokens on any grid, over a fine map first and a coarse one then."""
    torch.manual_seed(0)
    decoder: dict[str, Any] = {"in_dim": 6, "dim": 8, "num_layers": num_layers, "num_heads": 2}
    upsampling = QueryUpsampling(num_stages=2, native_grid=(2, 3), **decoder)
    stirred(upsampling)
    slow = one_file.QueryUpsampling(decoder_stages(2, **decoder), (2, 3), 8)
    slow.eval().load_state_dict(upsampling.state_dict())
    features = [torch.randn(2, 6, *grid), torch.randn(2, 6, -(-grid[0] // 2), -(-grid[1] // 2))]
    (upsampled,) = upsampling(features, grid)
    assert_close(upsampled, slow(features))
    tokens = upsampling.tokens[None]
    assert_close(resize_tokens(tokens, (2, 3), grid), one_file.resize(tokens, (2, 3), grid))


@torch.no_grad()
def test_similarity_is_the_mean_over_heads_before_the_softmax() -> None:
    torch.manual_seed(0)
    attention = Attention(dim=12, num_heads=3, dropout=0.0)
    queries, tokens = torch.randn(2, 4, 12), torch.randn(2, 5, 12)
    q = attention.q(queries)
    attended, k = attention(q, tokens)
    values, expected = one_file.attend(q, k, attention.v(tokens), num_heads=3)
    assert_close(attended, attention.proj(values))
    assert_close(similarity(q, k, num_heads=3), expected)


@pytest.mark.parametrize("part", ["head", "up-sampling"])
@pytest.mark.parametrize("place", ["package", "one file"])
def test_a_part_starts_as_the_paper_says(place: str, part: str) -> None:
    torch.manual_seed(0)
    if place == "one file":
        slow = one_file.SegViT(200, taps=(0, 2), shrink_at=1, upsample=True, crop=224, dim=128, num_heads=2)
        head, upsampling = slow.head, slow.upsampling
        assert upsampling.tokens.shape == (14 * 14, 64)
    else:
        common: dict[str, Any] = {"in_dim": 64, "num_stages": 2, "dim": 64, "num_layers": 2, "num_heads": 2}
        head, upsampling = ATMHead(num_classes=200, **common), QueryUpsampling(native_grid=(12, 16), **common)
        assert upsampling.tokens.shape == (12 * 16, 64)
    tokens = head.class_tokens if part == "head" else upsampling.tokens
    assert abs(tokens.std().item() - 1) < 0.05 and abs(tokens.mean().item()) < 0.05
    for module in (head if part == "head" else upsampling).modules():
        if isinstance(module, nn.Linear):
            assert abs(module.weight.std().item() - 0.02) < 0.002
            assert not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-5 and (module.weight == 1).all() and not module.bias.any()


# The criterion --------------------------------------------------------------------------------------------------------


def random_output(seed: int, *, size: tuple[int, int] = (7, 9), padded: tuple[int, int] = (8, 12)) -> SegOutput:
    """Two outputs over two images of 4 classes on a 2 x 3 grid."""
    generator = torch.Generator().manual_seed(seed)
    class_logits = 2 * torch.randn(2, 2, 4, 5, generator=generator)
    mask_logits = 3 * torch.randn(2, 2, 4, 2, 3, generator=generator)
    return SegOutput(class_logits, mask_logits, size, padded)


def of_presence(output: SegOutput) -> SegOutput:
    """Return this output as a presence head gives it."""
    return output._replace(class_logits=output.class_logits[..., :1])


def label_cases() -> Iterator[Any]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (2, 7, 9), generator=generator)  # class 3 is absent
    labels[1][labels[1] == 2] = 0  # class 2 is absent from the second image
    yield pytest.param(labels, id="all labelled")
    ignored = labels.clone()
    ignored[torch.rand(ignored.shape, generator=generator) < 0.3] = 255
    yield pytest.param(ignored, id="some ignored")
    one = ignored.clone()
    one[1] = 255
    yield pytest.param(one, id="an image all ignored")
    yield pytest.param(torch.full_like(labels, 255), id="all ignored")
    single = torch.full_like(labels, 255)
    single[0, 3, 4] = 3
    yield pytest.param(single, id="one pixel labelled")


CONFIGS = [
    LossConfig(),
    LossConfig(ignore_as_negative=True),
    LossConfig(class_coefficient=0.5, focal_coefficient=3.0, dice_coefficient=2.0, no_object_weight=0.3),
]
each_labels = pytest.mark.parametrize("labels", list(label_cases()))
each_config = pytest.mark.parametrize("config", CONFIGS, ids=["ours", "ignored as negatives", "other coefficients"])
fused_and_plain = pytest.mark.parametrize("mask_losses", [fused_mask_losses, plain_mask_losses], ids=["fused", "plain"])


@each_labels
@each_config
@fused_and_plain
@pytest.mark.parametrize("padded", [(7, 9), (8, 12), (10, 9)], ids=["not padded", "padded", "padded below"])
def test_losses(labels: Tensor, config: LossConfig, mask_losses: MaskLosses, padded: tuple[int, int]) -> None:
    output = random_output(1, padded=padded)
    ours = criterion(output, labels, config=config, mask_losses=mask_losses)
    slow = slow_losses(output, labels, config)
    for s, terms in enumerate(as_table(ours)):
        assert terms.tolist() == pytest.approx(slow[s].tolist(), rel=TOLERANCE, abs=1e-7)
    assert float(ours.total) == pytest.approx(float(slow.sum()), rel=TOLERANCE)
    assert ours.named() == {
        f"{name}_{s + 1}": pytest.approx(float(slow[s, term]), rel=TOLERANCE, abs=1e-7)
        for term, name in enumerate(("class", "focal", "dice"))
        for s in range(2)
    }


@each_labels
@each_config
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_losses_of_a_presence_head(labels: Tensor, config: LossConfig, size: float) -> None:
    output = of_presence(random_output(1))
    output = output._replace(class_logits=(size * output.class_logits).requires_grad_())
    ours = criterion(output, labels, config=config)
    slow = slow_losses(output, labels, config)
    for terms, expected in zip(as_table(ours), slow, strict=True):
        assert terms.tolist() == pytest.approx(expected.tolist(), rel=TOLERANCE, abs=1e-7)
    (ours_slope,) = torch.autograd.grad(ours.total, output.class_logits)
    (slow_slope,) = torch.autograd.grad(slow.sum(), output.class_logits)
    assert_close(ours_slope, slow_slope)


def gradients_of(
    output: SegOutput, labels: Tensor, config: LossConfig, mask_losses: MaskLosses = fused_mask_losses
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """(class, mask) gradients of ours in float32, and of the one file's by autograd in float64."""
    leaves = [tensor.clone().requires_grad_() for tensor in output[:2]]
    total = criterion(SegOutput(*leaves, *output[2:]), labels, config=config, mask_losses=mask_losses).total
    ours = torch.autograd.grad(total, leaves, materialize_grads=True)
    doubles = [tensor.double().requires_grad_() for tensor in output[:2]]
    slow = slow_losses(SegOutput(*doubles, *output[2:]), labels, config).sum()
    assert total.item() == pytest.approx(slow.item(), rel=TOLERANCE)
    return ours, torch.autograd.grad(slow, doubles, materialize_grads=True)


@each_labels
@each_config
@fused_and_plain
@pytest.mark.parametrize("padded", [(7, 9), (8, 12)], ids=["not padded", "padded"])
def test_gradients_are_autograds(
    labels: Tensor, config: LossConfig, mask_losses: MaskLosses, padded: tuple[int, int]
) -> None:
    for ours, slow in zip(*gradients_of(random_output(2, padded=padded), labels, config, mask_losses), strict=True):
        assert_close(ours, slow)


@pytest.mark.parametrize("size", [50.0, 1000.0])
@each_config
def test_extreme_logits_stay_finite_and_right(size: float, config: LossConfig) -> None:
    output = random_output(4)
    output = output._replace(
        class_logits=size * output.class_logits.sign(), mask_logits=size * output.mask_logits.sign()
    )
    labels = next(label_cases()).values[0]
    for ours, slow in zip(*gradients_of(output, labels, config), strict=True):
        assert torch.isfinite(ours).all()
        assert_close(ours, slow)


@pytest.mark.parametrize("ignored", [False, True], ids=["all", "some"])
@pytest.mark.parametrize("term", [0, 1], ids=["focal", "dice"])
def test_slopes_are_finite_differences(ignored: bool, term: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 5, dtype=torch.float64, generator=generator)
    labels = (torch.rand(2, 4, 5, generator=generator) < 0.4).long()
    if ignored:
        labels[torch.arange(40).reshape(2, 4, 5) % 3 == 0] = IGNORE_INDEX
    ones = torch.ones(2, dtype=torch.int64)
    target = _Target(*(part.double() for part in _Target.of(labels, ones, ignore_as_negative=False)))

    def losses_and_slopes(at: Tensor) -> tuple[Tensor, Tensor]:
        work = at.repeat(4, 1, 1, 1)
        return _focal_and_dice(work, target)[term], work[term]

    slopes = losses_and_slopes(logits)[1]
    assert slopes.dtype == torch.float64
    step = 1e-6
    for m, y, x in product(range(2), range(4), range(5)):
        moved = [logits.clone(), logits.clone()]
        moved[0][m, y, x] += step
        moved[1][m, y, x] -= step
        above, below = (losses_and_slopes(value)[0][m] for value in moved)
        assert float(slopes[m, y, x]) == pytest.approx(float(above - below) / (2 * step), abs=1e-7)


def test_a_term_of_ones_own_joins_the_total_and_the_log() -> None:
    losses = criterion(random_output(10), next(label_cases()).values[0])
    before, names = losses.total, list(losses.named())
    losses["edges"], losses["depth"] = torch.tensor(0.5), torch.tensor([1.0, 2.0])
    assert float(losses.total) == pytest.approx(float(before) + 3.5)
    assert list(losses.named()) == [*names, "edges", "depth_1", "depth_2"]


@pytest.mark.parametrize("budget", [1, 7 * 9 * 3], ids=["a mask at a time", "three"])
def test_chunks_change_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [case.values[0] for case in label_cases()][1]
    whole = gradients_of(random_output(5), labels, LossConfig())[0]
    monkeypatch.setattr(losses_module, "CHUNK_ELEMENTS", budget)
    for ours, expected in zip(gradients_of(random_output(5), labels, LossConfig())[0], whole, strict=True):
        assert_close(ours, expected, 1e-6)


def test_averaged_divisors_make_ranks_one_batch() -> None:
    """The mean over two ranks of one image each, with averaged divisors, is the loss of the batch of two."""
    output, labels = random_output(6), [case.values[0] for case in label_cases()][1]
    whole = criterion(output, labels)
    alone = [normalizers(labels[b : b + 1], 4) for b in range(2)]
    assert alone[0].num_masks != alone[1].num_masks
    mean = Normalizers(
        num_masks=(alone[0].num_masks + alone[1].num_masks) / 2,
        class_weight=(alone[0].class_weight + alone[1].class_weight) / 2,
    )
    ranks = [
        criterion(
            output._replace(
                class_logits=output.class_logits[:, b : b + 1], mask_logits=output.mask_logits[:, b : b + 1]
            ),
            labels[b : b + 1],
            divisors=mean,
        )
        for b in range(2)
    ]
    for name in ("class", "focal", "dice"):
        assert_close((ranks[0][name] + ranks[1][name]) / 2, whole[name])


def test_labels_that_do_not_fit_are_told() -> None:
    output = random_output(7)
    with pytest.raises(UserError, match=r"\(2, 8, 12\).*\(2, 7, 9\)"):
        criterion(output, torch.zeros(2, 8, 12, dtype=torch.int64))
    for value in (4, 254, -1):
        with pytest.raises(UserError, match=rf"\[{value}\].*4 classes.*0 to 3"):
            criterion(output, torch.full((2, 7, 9), value))


# Scores, label maps, windows ------------------------------------------------------------------------------------------


def test_scores() -> None:
    output = random_output(8)
    assert_close(scores(output), slow_scores(output))
    present = of_presence(output)
    assert_close(scores(present), slow_scores(present))


def assert_is_argmax(labels: Tensor, volume: Tensor) -> None:
    """Labels (B, H, W) name the best of scores (B, K, H, W), but for pixels where the two best are all but equal."""
    assert labels.dtype == torch.int64 and labels.shape == volume[:, 0].shape
    wrong = labels != volume.argmax(dim=1)
    gap = volume.max(dim=1).values - volume.gather(1, labels[:, None])[:, 0]
    assert float(gap.max()) < 1e-5
    assert float(wrong.float().mean()) < 0.01


@pytest.mark.parametrize("budget", [1, 1000, 2**22], ids=["a row at a time", "some rows", "whole"])
@pytest.mark.parametrize(
    "size",
    [
        None,
        (20, 26),
        (1, 1),
        *(pytest.param(size, marks=pytest.mark.slow) for size in ((90, 61), (40, 52), (40, 104), (81, 52))),
    ],
)
def test_label_map_is_the_argmax_of_the_scores(
    budget: int, size: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tiles_module.TILE_ELEMENTS, "cpu", budget)
    output = SegOutput(torch.randn(1, 2, 6, 7), 4 * torch.randn(1, 2, 6, 5, 7), (40, 52), (40, 56))
    volume = scores(output)
    if size is not None and size != output.image_size:
        volume = F.interpolate(volume, size=size, mode="bilinear", align_corners=False)
    assert_is_argmax(label_map(output, size), volume)


def test_equal_scores_go_to_the_first_class() -> None:
    output = SegOutput(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 2, 2), (8, 8), (8, 8))
    assert not label_map(output).any()
    assert torch.equal(label_map(output), scores(output).argmax(dim=1))


@pytest.mark.parametrize(
    "side, window, stride", [(64, 64, 32), (65, 64, 32), (100, 64, 32), (640, 640, 608), (1000, 512, 341), (7, 64, 3)]
)
def test_window_starts(side: int, window: int, stride: int) -> None:
    count = max(math.ceil((side - window) / stride), 0) + 1
    starts = window_starts(side, window, stride)
    assert len(starts) == count
    for index, start in enumerate(starts):
        assert start == max(min(index * stride + window, side) - window, 0)
    covered = {place for start in starts for place in range(start, min(start + window, side))}
    assert covered == set(range(side))


@pytest.fixture(scope="module")
def tiny_model() -> SegViT:
    torch.manual_seed(0)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2
    )
    model = create_model(config=config, num_classes=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "head" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=["uint8", "float"])
@pytest.mark.parametrize(
    "height, width, window, stride, batch_size",
    [
        (32, 32, 32, 20, 8),
        (50, 75, 32, 20, 2),
        (50, 75, 32, 32, 8),
        (33, 32, 32, 5, 3),
        (20, 75, 32, 21, 8),
        (75, 11, 32, 21, 1),
        (5, 9, 32, 21, 8),
        (40, 61, 27, 13, 4),
    ],
)
def test_sliding_scores_by_hand(
    tiny_model: SegViT, height: int, width: int, window: int, stride: int, batch_size: int, dtype: torch.dtype
) -> None:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    image = image if dtype == torch.uint8 else image.float() / 255
    (view,) = look(tiny_model, image[None], windows=Windows(window, stride), batch_size=batch_size)
    ours = torch.empty(3, height, width)
    for rows, columns, tile in Composition([view], (height, width)).tiles():
        ours[:, rows, columns] = tile
    pixels = image.float() / 255 if dtype == torch.uint8 else image
    total, count = torch.zeros(3, height, width), torch.zeros(height, width)
    for row in range(max(math.ceil((height - window) / stride), 0) + 1):
        for column in range(max(math.ceil((width - window) / stride), 0) + 1):
            bottom, right = min(row * stride + window, height), min(column * stride + window, width)
            top, left = max(bottom - window, 0), max(right - window, 0)
            cut = tiny_model.mean[:, None, None].expand(3, window, window).clone()
            cut[:, : bottom - top, : right - left] = pixels[:, top:bottom, left:right]
            part = tiny_model.scores(cut[None])[0]
            total[:, top:bottom, left:right] += part[:, : bottom - top, : right - left]
            count[top:bottom, left:right] += 1
    assert_close(ours, total / count)


# The metric -----------------------------------------------------------------------------------------------------------


def test_metric_by_sets_of_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    num_classes = 6
    pairs = []
    for shape in ((4, 5), (7, 3), (2, 2)):
        labels = torch.randint(0, 4, shape, generator=generator)  # 4 is predicted only, 5 is in neither
        labels[torch.rand(shape, generator=generator) < 0.2] = IGNORE_INDEX
        predicted = torch.randint(0, 5, shape, generator=generator)
        predicted[predicted == 2] = 0  # 2 is labelled only
        pairs.append((predicted, labels))
    matrix = ConfusionMatrix(num_classes)
    for predicted, labels in pairs:
        matrix.update(predicted, labels)
    metrics = matrix.compute()

    truth: list[set[Any]] = [set() for _ in range(num_classes)]
    guess: list[set[Any]] = [set() for _ in range(num_classes)]
    for image, (predicted, labels) in enumerate(pairs):
        for y, x in product(range(labels.shape[0]), range(labels.shape[1])):
            if labels[y, x] != 255:
                truth[int(labels[y, x])].add((image, y, x))
                guess[int(predicted[y, x])].add((image, y, x))
    everything = sum(len(pixels) for pixels in truth)
    ious, accuracies = {}, {}
    for k in range(num_classes):
        if truth[k] | guess[k]:
            ious[k] = len(truth[k] & guess[k]) / len(truth[k] | guess[k])
        if truth[k]:
            accuracies[k] = len(truth[k] & guess[k]) / len(truth[k])
        assert metrics.labelled[k] == pytest.approx(len(truth[k]) / everything)
    assert set(ious) == {0, 1, 2, 3, 4} and set(accuracies) == {0, 1, 2, 3}
    assert {k: value for k, value in enumerate(metrics.iou) if value is not None} == pytest.approx(ious)
    assert {k: value for k, value in enumerate(metrics.accuracy) if value is not None} == pytest.approx(accuracies)
    assert ious[2] == ious[4] == 0  # they count, as zeros; class 5 does not
    assert metrics.absent == (5,)
    assert metrics.miou == pytest.approx(sum(ious.values()) / 5)
    assert metrics.mean_accuracy == pytest.approx(sum(accuracies.values()) / 4)
    hits = sum(len(truth[k] & guess[k]) for k in range(num_classes))
    assert metrics.overall_accuracy == pytest.approx(hits / everything)


def test_metric_of_nothing_and_of_all_right() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), 255))
    nothing = matrix.compute()
    assert (nothing.miou, nothing.mean_accuracy, nothing.overall_accuracy) == (None, None, None)
    assert nothing.absent == (0, 1, 2)
    matrix.update(torch.tensor([[0, 2]]), torch.tensor([[0, 2]]))
    right = matrix.compute()
    assert (right.miou, right.mean_accuracy, right.overall_accuracy) == (1, 1, 1)
    assert right.iou == (1, None, 1)


# The optimizer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps, warmup, power", [(160_000, 1500, 1.0), (80_000, 1500, 2.0), (1500, 100, 0.9)])
def test_learning_rate_is_the_papers(steps: int, warmup: int, power: float) -> None:
    config = OptimConfig(warmup_steps=warmup, power=power)
    for t in (0, 1, 2, warmup // 2, warmup - 1, warmup, warmup + 1, steps // 2, steps - 1):
        warm = (1 - (1 - t / warmup) * (1 - 1e-6)) if t < warmup else 1
        assert learning_rate_factor(t, steps=steps, config=config) == pytest.approx((1 - t / steps) ** power * warm)
    assert learning_rate_factor(0, steps=steps, config=config) == pytest.approx(1e-6)
    assert learning_rate_factor(0, steps=steps, config=OptimConfig(warmup_steps=0)) == 1


@pytest.mark.parametrize("structure", get_args(Structure))
@pytest.mark.parametrize(
    "backbone",
    ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "beitv2_base_patch16_224", "vit_small_patch16_dinov3"],
)
def test_each_parameter_is_in_one_group(backbone: str, structure: Structure) -> None:
    config = ModelConfig(
        backbone=backbone,
        structure=structure,
        downsampling="nearest_q" if structure == "plain" else "conv",
        image_size=32,
        embed_dim=32,
        depth=3,
        num_heads=2,
    )
    model = create_model(config=config, num_classes=2)
    optim = OptimConfig(lr=1e-3, head_lr_factor=7.0, weight_decay=0.05)
    groups = parameter_groups(model, optim)
    parameters = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(parameters))
    assert set(parameters) == {id(parameter) for parameter in model.parameters()}

    optimizer = create_optimizer(model, optim)
    found = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            group, in_head = found[id(parameter)], name.startswith(("head", "upsampling", "backbone.downsampling"))
            assert in_head or name.startswith("backbone")
            norm = isinstance(module, nn.LayerNorm) and not in_head
            assert group["weight_decay"] == (0 if norm else 0.05), f"{name}.{key}"
            assert group["lr"] == pytest.approx(7e-3 if in_head else 1e-3), f"{name}.{key}"
    parts = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert parts == {"backbone", "head"} | ({"upsampling"} if structure == "shrunk" else set())
    assert sum(group["weight_decay"] == 0 for group in optimizer.param_groups) == 1
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    set_learning_rate(optimizer, 0.5)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2.5e-4, 2.5e-4, 1.75e-3])
