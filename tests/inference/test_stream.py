"""Labels composed row by row are those of the image in memory."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import segvit
from segvit.config import EvalConfig, ModelConfig
from segvit.errors import UserError
from segvit.inference.protocol import image_labels
from segvit.inference.stream import can_stream, stream_labels


class InMemory:
    """An image that notes which of its rows were read."""

    def __init__(self, image: Tensor) -> None:
        self.image, self.rows = image, set[int]()

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]

    def read(self, rows: slice, columns: slice) -> Tensor:
        self.rows |= set(range(rows.start, rows.stop))
        return self.image[:, rows, columns]


def varied_model(num_classes: int, bands: int = 4) -> segvit.SegViT:
    """A model in which many classes win somewhere."""
    torch.manual_seed(0)
    config = ModelConfig(embed_dim=32, depth=2, num_heads=2, taps=(0, 1), bands=bands, class_token=False, init_std=0.3)
    model = segvit.create_model("vit_tiny_patch16_224", num_classes=num_classes, image_size=32, config=config)
    with torch.no_grad():
        model.head.classifier.weight[:-1] = model.head.class_tokens
        for stage in model.head.stages:
            stage.layers[-1].cross_attn.q.weight.normal_(std=1.0)
    return model.eval()


@pytest.mark.parametrize("size", [(100, 90), (20, 90), (100, 20), (33, 64), (32, 32)], ids=str)
@pytest.mark.parametrize("tile", [24, 200])
def test_rows_are_those_of_the_image_in_memory(size: tuple[int, int], tile: int) -> None:
    model, protocol = varied_model(6), EvalConfig(stride=20, batch_size=3)
    image = torch.rand(4, *size, generator=torch.Generator().manual_seed(1))
    for config in (protocol, replace(protocol, flip=True), replace(protocol, blend="gaussian")):
        expected = image_labels(model, image, config)
        rows, parts = zip(*stream_labels(model, InMemory(image), config, tile=tile), strict=True)
        assert [span.start for span in rows] == list(range(0, size[0], tile)) and rows[-1].stop == size[0]
        assert torch.equal(torch.cat(parts).long(), expected)
    assert len(expected.unique()) > 1 or size == (32, 32)


def test_many_classes_go_by_bounds_and_rows_above_are_not_read_again() -> None:
    model, config = varied_model(40), EvalConfig(stride=20, batch_size=3)
    image = torch.rand(4, 130, 70, generator=torch.Generator().manual_seed(1))
    expected, source = image_labels(model, image, config), InMemory(image)
    parts = [labels for _, labels in stream_labels(model, source, config, tile=32, first=3)]
    assert torch.equal(torch.cat(parts).long(), expected[96:])
    assert min(source.rows) >= 60  # windows from row 80 on touch row 96; their batch may begin one row of windows above


@pytest.mark.parametrize(
    "config", [EvalConfig(mode="whole"), EvalConfig(scales=(0.5, 1.0)), EvalConfig(resize_long=64)], ids=str
)
def test_protocols_that_need_the_whole_image_are_refused(config: EvalConfig) -> None:
    assert not can_stream(config)
    with pytest.raises(UserError, match="whole image"):
        next(stream_labels(varied_model(3), InMemory(torch.rand(4, 64, 64)), config, tile=16))
