"""A model without weights that finds the strongest of red, green and blue: in Python, and as a runtime for the browser.

Both compute the same logits, so that a page is tested without ONNX Runtime.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.config import EvalConfig
from segvit.data.spec import DatasetSpec
from segvit.models.output import SegOutput

CELL = 4
"""Side of a cell of the mask logits in pixels."""
PALETTE = ((200, 40, 40), (40, 160, 60), (50, 80, 200))
"""Colours of the classes."""
RUNTIME = """
// Stands in for ONNX Runtime: `create` returns the network, or the composition of scores, whose file is an ONNX file.
const CELL = 4, STEEP = 8, SURE = 6;
export const env = { wasm: {} };
export class Tensor {
  constructor(type, data, dims) { Object.assign(this, { type, data, dims }); }
}
export const InferenceSession = {
  async create(bytes) { return { run: bytes[0] === 8 ? compose : network }; },
};
async function network({ images: { data, dims }, valid }) {
  const [, , height, width] = dims, [h, w] = [height, width].map((side) => Math.ceil(side / CELL));
  const masks = new Float32Array(3 * h * w), [rows, columns] = [...valid.data].map(Number);
  const at = (k, y, x) => (y < rows && x < columns ? data[(k * height + y) * width + x] / 255 : 0.5);
  for (let k = 0; k < 3; k++) for (let y = 0; y < h * CELL; y++) for (let x = 0; x < w * CELL; x++) {
    masks[(k * h + Math.floor(y / CELL)) * w + Math.floor(x / CELL)] += (STEEP * (at(k, y, x) - 0.5)) / CELL ** 2;
  }
  const classes = Float32Array.from({ length: 12 }, (_, place) => (place % 4 === Math.floor(place / 4) ? SURE : 0));
  return {
    class_logits: { data: classes, dims: [1, 3, 4] },
    mask_logits: { data: masks, dims: [1, 3, h, w] },
  };
}
async function compose({ class_logits, mask_logits, rows, columns }) {
  const [y, h] = rows.dims, [w, x] = columns.dims, scores = new Float32Array(3 * y * x);
  const weights = class_logits.data.map(Math.exp);
  const sums = [0, 4, 8].map((q) => weights.slice(q, q + 4).reduce((a, b) => a + b));
  for (let q = 0; q < 3; q++) for (let i = 0; i < y; i++) for (let j = 0; j < x; j++) {
    let logit = 0;
    for (let a = 0; a < h; a++) for (let b = 0; b < w; b++) {
      logit += rows.data[i * h + a] * mask_logits.data[(q * h + a) * w + b] * columns.data[b * x + j];
    }
    const mask = 1 / (1 + Math.exp(-logit));
    for (let k = 0; k < 3; k++) scores[(k * y + i) * x + j] += (weights[q * 4 + k] / sums[q]) * mask;
  }
  return { scores: { data: scores } };
}
"""
"""JavaScript module in the place of onnxruntime-web."""


class ColourModel:
    """Classes red, green and blue."""

    config = None
    num_classes = 3
    image_size = 16
    training = False

    def __init__(self, protocol: EvalConfig) -> None:
        self.protocol = protocol
        self.spec = DatasetSpec(
            name="colours", classes=("red", "green", "blue & <i>"), palette=PALETTE, raw_ids=(0, 1, 2)
        )
        self.extra: dict[str, Any] = {"metrics": {"miou": 0.625}}
        self.parts = {"backbone": "Colours", "head": "Colours"}
        self.mean = torch.full((3,), 0.5)

    def __call__(self, images: Tensor, deep: bool = True, canvas: tuple[int, int] | None = None) -> SegOutput:
        unit = images.float() / 255
        height, width = images.shape[2:]
        tall, wide = (max(side, least) for side, least in zip((height, width), canvas or (0, 0), strict=True))
        down, right = (-(-side // CELL) * CELL for side in (tall, wide))
        padded = F.pad(unit, (0, right - width, 0, down - height), value=0.5)
        masks = 8 * (F.avg_pool2d(padded, CELL) - 0.5)
        classes = 6 * torch.eye(3, 4).expand(1, len(images), 3, 4)
        return SegOutput(classes, masks[None], (height, width), (down, right))

    def train(self, mode: bool = True) -> "ColourModel":
        return self
