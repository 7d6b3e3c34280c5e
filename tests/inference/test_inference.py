"""The test protocol: windows, scales and flips composed tile by tile, against the obvious way."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segvit.inference.tiles as tiles_module
from segvit.config import EvalConfig, ModelConfig, Structure
from segvit.errors import UserError
from segvit.inference.protocol import image_confidence, image_labels, image_scores, protocol_size, resolve_protocol
from segvit.inference.tiles import Composition, View
from segvit.inference.windows import Windows, look
from segvit.models.create import create_model
from segvit.models.scores import scores
from segvit.models.segvit import SegViT
from segvit.utils.resize import bilinear_matrix, resize

NUM_CLASSES = 4
PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@pytest.fixture(scope="module", params=["plain", "shrunk", "naive_shrunk"])
def model(request: pytest.FixtureRequest) -> SegViT:
    """A tiny model whose queries are its classes and whose masks vary, so that several classes win."""
    torch.manual_seed(0)
    structure: Structure = request.param
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2,
        structure=structure,
    )  # fmt: skip
    model = create_model(config=config, num_classes=NUM_CLASSES)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
        model.head.classifier.weight[:-1] = model.head.class_tokens
        for stage in model.head.stages:
            for layer in stage.layers:
                layer.cross_attn.q.weight.normal_()
                layer.cross_attn.k.weight.normal_()
    return model.eval()


def photo(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def naive_view(model: SegViT, image: Tensor, config: EvalConfig) -> Tensor:
    """Scores (K, H, W) of an image at one scale: the volume, summed over windows and divided by their weights."""
    if config.mode == "whole":
        return scores(model(image[None], deep=False))[0]
    told = resolve_protocol(model, config)
    window, stride = int(str(told["window"])), int(str(told["stride"]))
    _, height, width = image.shape
    total, count = torch.zeros(NUM_CLASSES, height, width), torch.zeros(height, width)
    down, across = (max(-(-(side - window) // stride), 0) + 1 for side in (height, width))
    for row, column in product(range(down), range(across)):
        bottom, right = min(row * stride + window, height), min(column * stride + window, width)
        top, left = max(bottom - window, 0), max(right - window, 0)
        cut = model.mean[:, None, None].expand(3, window, window).clone()
        cut[:, : bottom - top, : right - left] = image[:, top:bottom, left:right].float() / 255
        weights = torch.ones(bottom - top, right - left)
        if told["blend"] == "gaussian":
            y, x = (torch.arange(side) for side in weights.shape)
            weights = torch.exp(-((y[:, None] - (len(y) - 1) / 2) ** 2) / (2 * (len(y) / 8) ** 2))
            weights = weights * torch.exp(-((x - (len(x) - 1) / 2) ** 2) / (2 * (len(x) / 8) ** 2))
        found = scores(model(cut[None], deep=False))[0, :, : bottom - top, : right - left]
        total[:, top:bottom, left:right] += found * weights
        count[top:bottom, left:right] += weights
    return total / count


def naive_scores(model: SegViT, image: Tensor, config: EvalConfig) -> Tensor:
    """Scores (K, H, W) under a protocol: every view as a volume, resized, softmax where there are several, mean."""
    size = (image.shape[1], image.shape[2])
    volumes = []
    for scale in config.scales:
        resized = resize(image, protocol_size(*size, config, scale))
        for flip in (False, True) if config.flip else (False,):
            volume = naive_view(model, resized.flip(2) if flip else resized, config)
            volume = volume.flip(2) if flip else volume
            volumes.append(F.interpolate(volume[None], size=size, mode="bilinear", align_corners=False)[0])
    if len(volumes) == 1:
        return volumes[0]
    return torch.stack([volume.softmax(dim=0) for volume in volumes]).mean(dim=0)


PROTOCOLS = {
    "whole": EvalConfig(mode="whole"),
    "windows": EvalConfig(stride=20),
    "windows smaller than the crop": EvalConfig(window=24, stride=24, batch_size=3),
    "windows at another size": EvalConfig(resize_long=90, resize_short=40, stride=21),
    "larger than native": EvalConfig(mode="whole", resize_short=100),
    "flip alone": EvalConfig(flip=True),
    "windows that count less at their border": EvalConfig(stride=20, blend="gaussian", resize_short=44, flip=True),
    "the paper's scales, whole": EvalConfig(mode="whole", scales=PAPER_SCALES, flip=True),
    "the paper's scales, windows": EvalConfig(resize_short=36, resize_short_min=33, scales=PAPER_SCALES, flip=True),
    "one scale that is not 1": EvalConfig(scales=(1.5,)),
}


@torch.no_grad()
@pytest.mark.parametrize(
    "size, elements",
    [
        pytest.param((50, 75), NUM_CLASSES * 900, id="small tiles"),
        pytest.param((64, 33), 2**22, id="one tile", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_tiles_equal_the_volume(
    model: SegViT, protocol: EvalConfig, size: tuple[int, int], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tiles_module.TILE_ELEMENTS, "cpu", elements)
    image = photo(*size)
    expected = naive_scores(model, image, protocol)
    ours = image_scores(model, image, protocol)
    assert ours.shape == expected.shape
    assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-5
    labels = image_labels(model, image, protocol)
    gap = expected.max(dim=0).values - expected.gather(0, labels[None])[0]
    assert float(gap.max()) < 1e-5
    assert len(labels.unique()) > 1
    same, share = image_confidence(model, image, protocol)
    assert torch.equal(same, labels)
    assert float((share - (expected.max(dim=0).values / expected.sum(dim=0))).abs().max()) < 1e-5


@torch.no_grad()
def test_a_tile_holds_no_more_than_its_budget(model: SegViT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiles_module.TILE_ELEMENTS, "cpu", 4000)
    (view,) = look(model, photo(60, 90)[None])
    covered = torch.zeros(30, 200)
    for rows, columns, tile in Composition([view], (30, 200)).tiles():
        assert tile.numel() <= 4000
        covered[rows, columns] += 1
    assert bool((covered == 1).all())


@torch.no_grad()
def test_a_view_keeps_token_grids_not_pixels(model: SegViT) -> None:
    (view,) = look(model, photo(100, 80)[None], windows=Windows(32, 20))
    assert len(view.corners) == len(view.logits) == 5 * 4
    assert max(view.logits.shape[2:]) <= 32 // model.backbone.patch_size


@torch.no_grad()
def test_a_mirrored_view_is_the_view_of_the_mirrored_image(model: SegViT) -> None:
    image = photo(40, 57)
    (straight,) = look(model, image.flip(2)[None], windows=Windows(32, 20))
    (mirrored,) = look(model, image[None], windows=Windows(32, 20), flipped=True)
    everything = (slice(0, 40), slice(0, 57))
    assert torch.equal(mirrored.scores(*everything), straight.scores(*everything).flip(2))
    part = mirrored.scores(slice(3, 9), slice(10, 31))
    assert float((part - mirrored.scores(*everything)[:, 3:9, 10:31]).abs().max()) < 1e-5


def test_many_overlapping_windows_by_hand() -> None:
    """Random windows of one query each: the mean over those that cover a pixel."""
    torch.manual_seed(0)
    logits = torch.randn(3, 1, 2, 2)
    corners = ((0, 0), (0, 3), (1, 2))
    matrix = bilinear_matrix(2, 4, logits.device)
    view = View(
        size=(5, 7),
        corners=corners,
        probabilities=torch.ones(3, 1, 1),
        logits=logits,
        rows=matrix,
        columns=matrix,
        padded_size=(4, 4),
    )
    with pytest.raises(AssertionError, match="windows cover the image"):
        view.scores(slice(4, 5), slice(0, 1))
    ours = view.scores(slice(1, 4), slice(1, 7))
    masks = F.interpolate(logits, size=(4, 4), mode="bilinear", align_corners=False).sigmoid()
    for y, x in product(range(1, 4), range(1, 7)):
        seen = [
            masks[index, 0, y - top, x - left]
            for index, (top, left) in enumerate(corners)
            if 0 <= y - top < 4 and 0 <= x - left < 4
        ]
        assert float(ours[0, y - 1, x - 1]) == pytest.approx(float(torch.stack(seen).mean()), rel=1e-6)


@pytest.mark.parametrize(
    "config, scale, expected",
    [
        (EvalConfig(resize_long=2048, resize_short=640), 1.0, (640, 960)),
        (EvalConfig(resize_long=2048, resize_short=640), 0.5, (320, 480)),
        (EvalConfig(resize_short=512, resize_short_min=512), 0.5, (512, 768)),
        (EvalConfig(resize_short=520, resize_short_min=480), 0.5, (480, 720)),
        (EvalConfig(resize_short=520, resize_short_min=480), 1.5, (780, 1170)),
        (EvalConfig(), 1.0, (400, 600)),
        (EvalConfig(), 1.75, (700, 1050)),
        (EvalConfig(resize_long=900, resize_short=1000), 2.0, (1200, 1800)),
    ],
)
def test_sizes_of_the_paper(config: EvalConfig, scale: float, expected: tuple[int, int]) -> None:
    """PAPER: ADE20K fits (2048, crop) * r; COCO-Stuff max(512 r, 512); PASCAL-Context max(520 r, 480)."""
    assert protocol_size(400, 600, config, scale) == expected
    height, width = protocol_size(600, 400, config, scale)
    assert (width, height) == expected


def test_scales_that_are_none_are_told(model: SegViT) -> None:
    for scales in ((), (0.0,), (1.0, -1.0), (float("nan"),), (1000.0,)):
        with pytest.raises(UserError, match=r"eval\.scales"):
            resolve_protocol(model, EvalConfig(scales=scales))
    with pytest.raises(UserError, match=r"eval\.blend 'gausian': give mean or gaussian"):
        resolve_protocol(model, EvalConfig(blend="gausian"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"resize_short_min.*resize_short"):
        resolve_protocol(model, EvalConfig(resize_short_min=3))
    with pytest.raises(UserError, match=r"resize_short_min.*resize_long"):
        resolve_protocol(model, EvalConfig(resize_short_min=3, resize_short=3, resize_long=9))
    told = resolve_protocol(model, replace(PROTOCOLS["the paper's scales, windows"], window=32))
    assert told["scales"] == list(PAPER_SCALES) and told["flip"] is True
