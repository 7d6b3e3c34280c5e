"""Every formula of the method once more, slow and obvious, and ours equal to it."""

import math
from collections.abc import Iterator, Sequence
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
from segvit.fused_losses import _focal_and_dice, _softplus, _Target, fused_mask_losses
from segvit.inference.label_map import label_map
from segvit.inference.tiles import Composition
from segvit.inference.windows import Windows, look, window_starts
from segvit.losses import IGNORE_INDEX, Normalizers, criterion, normalizers, plain_mask_losses
from segvit.models.atm import ATMHead
from segvit.models.create import create_model
from segvit.models.decoder import Attention, DecoderLayer, DecoderStage, similarity
from segvit.models.output import SegOutput
from segvit.models.positions import resize_tokens
from segvit.models.scores import scores
from segvit.models.segvit import SegViT
from segvit.models.upsampling import QueryUpsampling
from segvit.training.optim import create_optimizer, learning_rate_factor, parameter_groups, set_learning_rate

TOLERANCE = 1e-5


def assert_close(ours: Tensor, reference: Tensor, tolerance: float = TOLERANCE) -> None:
    """The largest difference over the largest value."""
    assert ours.shape == reference.shape
    scale = reference.abs().max().clamp(min=1e-30)
    assert float((ours.double() - reference.double()).abs().max() / scale) <= tolerance


# Attention to mask ----------------------------------------------------------------------------------------------------


def layer_norm(norm: nn.LayerNorm, row: Tensor) -> Tensor:
    """One vector (d,) to mean 0 and variance 1, then scaled and shifted; eps 1e-5."""
    centred = row - row.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-5) * norm.weight + norm.bias


def slow_attention(attention: Attention, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """One image, query by query and head by head: (n, d), (N, d) -> attended (n, d), mean similarity (n, N)."""
    head_dim = queries.shape[1] // attention.num_heads
    attended, mean_similarity = [], []
    for query in queries:
        parts, similarities = [], []
        for head in range(attention.num_heads):
            rows = slice(head * head_dim, (head + 1) * head_dim)
            q = attention.q.weight[rows] @ query + attention.q.bias[rows]
            keys = [attention.k.weight[rows] @ token + attention.k.bias[rows] for token in tokens]
            values = [attention.v.weight[rows] @ token + attention.v.bias[rows] for token in tokens]
            s = torch.stack([q @ key / math.sqrt(head_dim) for key in keys])
            weights = s.exp() / s.exp().sum()
            parts.append(torch.stack([w * v for w, v in zip(weights, values, strict=True)]).sum(dim=0))
            similarities.append(s)
        attended.append(attention.proj.weight @ torch.cat(parts) + attention.proj.bias)
        mean_similarity.append(torch.stack(similarities).mean(dim=0))
    return torch.stack(attended), torch.stack(mean_similarity)


def slow_layer(layer: DecoderLayer, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """One image: G = LN(G + self(G)), LN(G + cross(G, Z)), LN(G + FFN(G)); the similarity of the cross-attention."""
    attended, _ = slow_attention(layer.self_attn, queries, queries)
    queries = torch.stack([layer_norm(layer.norm1, row) for row in queries + attended])
    attended, similarity = slow_attention(layer.cross_attn, queries, tokens)
    queries = torch.stack([layer_norm(layer.norm2, row) for row in queries + attended])
    hidden = torch.stack([(layer.fc1.weight @ row + layer.fc1.bias).clamp(min=0) for row in queries])
    branch = torch.stack([layer.fc2.weight @ row + layer.fc2.bias for row in hidden])
    return torch.stack([layer_norm(layer.norm3, row) for row in queries + branch]), similarity


def slow_stage(stage: DecoderStage, queries: Tensor, feature: Tensor) -> list[tuple[Tensor, Tensor]]:
    """One image: (K, d) and a map (D, h, w) -> after each layer, the queries (K, d) and A (K, h, w)."""
    _, height, width = feature.shape
    tokens = [feature[:, y, x] for y, x in product(range(height), range(width))]
    if isinstance(stage.proj, nn.Linear):  # else the map has width d, and comes as it is
        tokens = [layer_norm(stage.norm, stage.proj.weight @ token + stage.proj.bias) for token in tokens]
    outputs = []
    for layer in stage.layers:
        queries, similarity = slow_layer(layer, queries, torch.stack(tokens))
        outputs.append((queries, similarity.reshape(-1, height, width)))
    return outputs


def stirred(module: nn.Module) -> None:
    """Random weights that matter, in evaluation mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    module.eval()


@torch.no_grad()
def test_attention_to_mask_by_loops() -> None:
    torch.manual_seed(0)
    head = ATMHead(in_dim=6, num_stages=2, num_classes=3, dim=8, num_layers=2, num_heads=2)
    stirred(head)
    features = [torch.randn(2, 6, 2, 3), torch.randn(2, 6, 2, 3)]
    class_logits, mask_logits = head(features)
    assert class_logits.shape == (2, 2, 3, 4) and mask_logits.shape == (2, 2, 3, 2, 3)
    for image in range(2):
        queries, total = head.class_tokens, torch.zeros(3, 2, 3)
        for output, feature in enumerate(reversed(features)):  # the deepest map first
            queries, similarity = slow_stage(head.stages[output], queries, feature[image])[-1]
            total = total + similarity
            classes = torch.stack([head.classifier.weight @ query + head.classifier.bias for query in queries])
            assert_close(class_logits[output, image], classes)
            assert_close(mask_logits[output, image], total)


@torch.no_grad()
@pytest.mark.parametrize("num_stages", [1, 2])
def test_every_layer_by_loops(num_stages: int) -> None:
    """Each layer's masks stand alone in a stage; the stage before counts as it does in the cascade."""
    torch.manual_seed(0)
    head = ATMHead(
        in_dim=None, num_stages=num_stages, num_classes=3, dim=8, num_layers=3, num_heads=2, every_layer=True
    )
    stirred(head)
    features = [torch.randn(2, 8, 2, 3) for _ in range(num_stages)]
    class_logits, mask_logits = head(features)
    assert class_logits.shape == (3 * num_stages, 2, 3, 4) and mask_logits.shape == (3 * num_stages, 2, 3, 2, 3)
    for image in range(2):
        queries, before = head.class_tokens, torch.zeros(3, 2, 3)
        for stage, feature in enumerate(reversed(features)):
            layers = slow_stage(head.stages[stage], queries, feature[image])
            for layer, (queries, masks) in enumerate(layers, start=3 * stage):
                classes = torch.stack([head.classifier.weight @ query + head.classifier.bias for query in queries])
                assert_close(class_logits[layer, image], classes)
                assert_close(mask_logits[layer, image], before + masks)
            before = before + layers[-1][1]
    last_classes, last_masks = head(features, deep=False)
    assert torch.equal(last_classes, class_logits[-1:]) and torch.equal(last_masks, mask_logits[-1:])


@torch.no_grad()
@pytest.mark.parametrize("grid", [(2, 3), (3, 5), (2, 2)], ids=["native", "larger", "smaller"])
def test_upsampling_by_loops(grid: tuple[int, int]) -> None:
    """Learned tokens on any grid, over a fine map first and a coarse one then."""
    torch.manual_seed(0)
    upsampling = QueryUpsampling(in_dim=6, num_stages=2, native_grid=(2, 3), dim=8, num_layers=2, num_heads=2)
    stirred(upsampling)
    features = [torch.randn(2, 6, *grid), torch.randn(2, 6, -(-grid[0] // 2), -(-grid[1] // 2))]
    upsampled = upsampling(features, grid)
    assert upsampled.shape == (2, 8, *grid)
    learned = upsampling.tokens.T.reshape(8, 2, 3)  # token y * 3 + x is that of cell (y, x)
    tokens = F.interpolate(learned[None], size=grid, mode="bicubic", align_corners=False)[0]
    assert_close(resize_tokens(upsampling.tokens[None], (2, 3), grid)[0], tokens.reshape(8, -1).T)
    for image in range(2):
        queries = torch.stack([tokens[:, y, x] for y, x in product(range(grid[0]), range(grid[1]))])
        for stage, feature in zip(upsampling.stages, features, strict=True):
            queries, _ = slow_stage(stage, queries, feature[image])[-1]
        for index, (y, x) in enumerate(product(range(grid[0]), range(grid[1]))):
            assert_close(upsampled[image, :, y, x], queries[index])


@torch.no_grad()
def test_shrunk_is_its_parts() -> None:
    """The up-sampled map at the grid of the padded image goes to the head; nothing is projected or added between."""
    torch.manual_seed(0)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224",
        structure="shrunk",
        image_size=32,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=2,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    model = create_model(config=config, num_classes=3)
    stirred(model)
    images = torch.randn(2, 3, 21, 50)
    padded = F.pad(images, (0, 6, 0, 3))
    features = model.backbone(padded)
    assert [tuple(feature.shape) for feature in features] == [(2, 32, 3, 7), (2, 32, 2, 4)]
    assert model.upsampling is not None
    expected = model.head([model.upsampling(features, (3, 7))])
    output = model(images)
    assert torch.equal(output.class_logits, expected[0]) and torch.equal(output.mask_logits, expected[1])
    assert output.padded_size == (24, 56)


@torch.no_grad()
def test_similarity_is_the_mean_over_heads_before_the_softmax() -> None:
    torch.manual_seed(0)
    attention = Attention(dim=12, num_heads=3, dropout=0.0)
    queries, tokens = torch.randn(2, 4, 12), torch.randn(2, 5, 12)
    q = attention.q(queries)
    attended, k = attention(q, tokens)
    for image in range(2):
        slow_attended, slow_similarity = slow_attention(attention, queries[image], tokens[image])
        assert_close(attended[image], slow_attended)
        assert_close(similarity(q, k, num_heads=3)[image], slow_similarity)


@pytest.mark.parametrize("part", ["head", "up-sampling"])
def test_a_part_starts_as_the_paper_says(part: str) -> None:
    torch.manual_seed(0)
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


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def pixel(mask: Sequence[Sequence[float]], y: int, x: int, size: tuple[int, int]) -> float:
    """Value at pixel (y, x) of a small mask stretched to `size`: bilinear, align_corners False."""
    places = []
    for position, old, new in ((y, len(mask), size[0]), (x, len(mask[0]), size[1])):
        source = max((position + 0.5) * old / new - 0.5, 0.0)
        low = min(int(source), old - 1)
        places.append((low, min(low + 1, old - 1), source - low))
    (top, bottom, v), (left, right, u) = places
    above = mask[top][left] * (1 - u) + mask[top][right] * u
    below = mask[bottom][left] * (1 - u) + mask[bottom][right] * u
    return above * (1 - v) + below * v


def slow_criterion(output: SegOutput, labels: Tensor, config: LossConfig) -> dict[str, list[float]]:
    """The three terms of every supervised output, pixel by pixel, in Python's doubles."""
    num_outputs, batch, num_classes = output.class_logits.shape[:3]
    terms: dict[str, list[float]] = {"class": [], "focal": [], "dice": []}
    rows = labels.tolist()
    present = [{value for row in image for value in row if value != 255} for image in rows]
    num_masks = max(sum(len(classes) for classes in present), 1)
    for s in range(num_outputs):
        entropy = weights = focal = dice = 0.0
        for b in range(batch):
            for k in range(num_classes):
                logits = output.class_logits[s, b, k].tolist()
                target, weight = (k, 1.0) if k in present[b] else (num_classes, config.no_object_weight)
                largest = max(logits)
                log_sum = largest + math.log(sum(math.exp(logit - largest) for logit in logits))
                entropy += weight * (log_sum - logits[target])
                weights += weight
                if k not in present[b]:
                    continue
                mask = output.mask_logits[s, b, k].tolist()
                pixel_focal, product_sum, p_sum, t_sum = [], 0.0, 0.0, 0.0
                for y, row in enumerate(rows[b]):
                    for x, label in enumerate(row):
                        if label == 255 and not config.ignore_as_negative:
                            continue
                        logit, t = pixel(mask, y, x, output.padded_size), float(label == k)
                        p = sigmoid(logit)
                        cross_entropy = softplus(-logit) if t else softplus(logit)
                        p_t, alpha = (p, 0.25) if t else (1 - p, 0.75)
                        pixel_focal.append(alpha * (1 - p_t) ** 2 * cross_entropy)
                        product_sum, p_sum, t_sum = product_sum + p * t, p_sum + p, t_sum + t
                focal += sum(pixel_focal) / len(pixel_focal)
                dice += 1 - (2 * product_sum + 1) / (p_sum + t_sum + 1)
        terms["class"].append(config.class_coefficient * entropy / weights)
        terms["focal"].append(config.focal_coefficient * focal / num_masks)
        terms["dice"].append(config.dice_coefficient * dice / num_masks)
    return terms


def random_output(seed: int, *, size: tuple[int, int] = (7, 9), padded: tuple[int, int] = (8, 12)) -> SegOutput:
    """Two outputs over two images of 4 classes on a 2 x 3 grid."""
    generator = torch.Generator().manual_seed(seed)
    class_logits = 2 * torch.randn(2, 2, 4, 5, generator=generator)
    mask_logits = 3 * torch.randn(2, 2, 4, 2, 3, generator=generator)
    return SegOutput(class_logits, mask_logits, size, padded)


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


@each_labels
@each_config
@pytest.mark.parametrize("padded", [(7, 9), (8, 12), (10, 9)], ids=["not padded", "padded", "padded below"])
def test_losses_pixel_by_pixel(labels: Tensor, config: LossConfig, padded: tuple[int, int]) -> None:
    output = random_output(1, padded=padded)
    ours, reference = criterion(output, labels, config=config), slow_criterion(output, labels, config)
    for name, values in reference.items():
        assert ours[name].tolist() == pytest.approx(values, rel=TOLERANCE, abs=1e-7), name
    assert float(ours.total) == pytest.approx(sum(sum(values) for values in reference.values()), rel=TOLERANCE)
    assert ours.named() == {
        f"{name}_{s + 1}": pytest.approx(values[s], rel=TOLERANCE, abs=1e-7)
        for name, values in reference.items()
        for s in range(2)
    }


def plain_total(class_logits: Tensor, mask_logits: Tensor, output: SegOutput, labels: Tensor, c: LossConfig) -> Tensor:
    """The total loss in autograd's hands, in the dtype of the logits."""
    total = class_logits.new_zeros(())
    num_classes = class_logits.shape[2]
    present = torch.stack([(labels == k).flatten(1).any(dim=1) for k in range(num_classes)], dim=1)  # (B, K)
    num_masks = max(int(present.sum()), 1)
    for classes, masks in zip(class_logits, mask_logits, strict=True):
        targets = torch.where(present, torch.arange(num_classes), num_classes)
        weight = torch.where(present, 1.0, c.no_object_weight).to(classes.dtype)
        entropy = F.cross_entropy(classes.flatten(0, 1), targets.flatten(), reduction="none") * weight.flatten()
        total = total + c.class_coefficient * entropy.sum() / weight.sum()
        full = F.interpolate(masks, size=output.padded_size, mode="bilinear", align_corners=False)
        full = full[..., : labels.shape[1], : labels.shape[2]]
        for b, k in present.nonzero().tolist():
            kept = torch.ones_like(labels[b], dtype=torch.bool) if c.ignore_as_negative else labels[b] != 255
            logit, t = full[b, k][kept], (labels[b] == k)[kept].to(full.dtype)
            p = logit.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(logit, t, reduction="none")
            p_t = p * t + (1 - p) * (1 - t)
            focal = (0.25 * t + 0.75 * (1 - t)) * (1 - p_t) ** 2 * entropy
            dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            total = total + (c.focal_coefficient * focal.mean() + c.dice_coefficient * dice) / num_masks
    return total


def gradients_of(
    output: SegOutput, labels: Tensor, config: LossConfig
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """(class, mask) gradients of ours in float32, and of the plain version in float64."""
    leaves = [tensor.clone().requires_grad_() for tensor in output[:2]]
    total = criterion(SegOutput(*leaves, *output[2:]), labels, config=config).total
    ours = torch.autograd.grad(total, leaves, materialize_grads=True)
    doubles = [tensor.double().requires_grad_() for tensor in output[:2]]
    plain = plain_total(*doubles, output, labels, config)
    assert total.item() == pytest.approx(plain.item(), rel=TOLERANCE)
    return ours, torch.autograd.grad(plain, doubles, materialize_grads=True)


@each_labels
@each_config
def test_gradients_are_autograds(labels: Tensor, config: LossConfig) -> None:
    for ours, plain in zip(*gradients_of(random_output(2), labels, config), strict=True):
        assert_close(ours, plain)


@pytest.mark.parametrize("size", [50.0, 1000.0])
@each_config
def test_extreme_logits_stay_finite_and_right(size: float, config: LossConfig) -> None:
    output = random_output(4)
    output = output._replace(
        class_logits=size * output.class_logits.sign(), mask_logits=size * output.mask_logits.sign()
    )
    labels = next(label_cases()).values[0]
    for ours, plain in zip(*gradients_of(output, labels, config), strict=True):
        assert torch.isfinite(ours).all()
        assert_close(ours, plain)


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
    _, slopes = _focal_and_dice(logits.clone(), target)
    assert slopes[term].dtype == torch.float64
    step = 1e-6
    for m, y, x in product(range(2), range(4), range(5)):
        moved = [logits.clone(), logits.clone()]
        moved[0][m, y, x] += step
        moved[1][m, y, x] -= step
        above, below = (_focal_and_dice(value, target)[0][term][m] for value in moved)
        assert float(slopes[term][m, y, x]) == pytest.approx(float(above - below) / (2 * step), abs=1e-7)


def test_the_short_softplus_is_softplus() -> None:
    x = torch.linspace(-100, 100, 40_001)
    wrong = x.sigmoid()
    exact = F.softplus(x.double())
    assert ((_softplus(x, wrong, 1 - wrong).double() - exact).abs() <= 2e-7 * exact.clamp(min=1)).all()


@each_labels
@each_config
@pytest.mark.parametrize("padded", [(7, 9), (8, 12)], ids=["not padded", "padded"])
def test_the_plain_mask_losses_are_the_fused_ones(labels: Tensor, config: LossConfig, padded: tuple[int, int]) -> None:
    output = random_output(9, padded=padded)
    found = []
    for mask_losses in (fused_mask_losses, plain_mask_losses):
        leaves = [tensor.clone().requires_grad_() for tensor in output[:2]]
        losses = criterion(SegOutput(*leaves, *output[2:]), labels, config=config, mask_losses=mask_losses)
        gradients = torch.autograd.grad(losses.total, leaves, materialize_grads=True)
        found.append([*losses.values(), *gradients])
    for fused, plain in zip(*found, strict=True):
        assert_close(fused, plain)


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


def test_scores_by_loops() -> None:
    output = random_output(8)
    ours = scores(output)
    assert ours.shape == (2, 4, 7, 9)
    for b, y, x in product(range(2), range(7), range(9)):
        for c in range(4):
            total = 0.0
            for q in range(4):
                logits = output.class_logits[-1, b, q].tolist()
                p = math.exp(logits[c]) / sum(math.exp(logit) for logit in logits)
                total += p * sigmoid(pixel(output.mask_logits[-1, b, q].tolist(), y, x, output.padded_size))
            assert float(ours[b, c, y, x]) == pytest.approx(total, rel=TOLERANCE)


def assert_is_argmax(labels: Tensor, volume: Tensor) -> None:
    """Labels (B, H, W) name the best of scores (B, K, H, W), but for pixels where the two best are all but equal."""
    assert labels.dtype == torch.int64 and labels.shape == volume[:, 0].shape
    wrong = labels != volume.argmax(dim=1)
    gap = volume.max(dim=1).values - volume.gather(1, labels[:, None])[:, 0]
    assert float(gap.max()) < 1e-5
    assert float(wrong.float().mean()) < 0.01


@pytest.mark.parametrize("budget", [1, 1000, 2**22], ids=["a row at a time", "some rows", "whole"])
@pytest.mark.parametrize("size", [None, (40, 52), (20, 26), (90, 61), (1, 1), (40, 104), (81, 52)])
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
    assert (nothing.miou, nothing.mean_accuracy, nothing.overall_accuracy) == (0, 0, 0)
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
