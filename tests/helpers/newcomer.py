"""Files of somebody in the first minutes: some photos and masks, a file that describes them, a model."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import segvit

TINY = {
    "backbone": "vit_tiny_patch16_224",
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "head_num_layers": 1,
}
SETTINGS = f"""\
model: {TINY}
data: {{images: photos, labels: masks, classes: [background, person], val_fraction: 0.34, workers: 0}}
eval: {{mode: whole}}
steps: 4
batch_size: 2
log_every: 4
device: cpu
loggers: []
output: runs/people
"""
NUM_PHOTOS = 6
HEIGHT, WIDTH = 48, 64


def make_folder(folder: Path) -> None:
    """Write photos/, masks/, photo.jpg, people.yaml and best.safetensors."""
    for name in ("photos", "masks"):
        (folder / name).mkdir()
    noise = np.random.default_rng(0)
    for number in range(NUM_PHOTOS):
        Image.fromarray(noise.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(
            folder / "photos" / f"{number}.jpg"
        )
        mask = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % WIDTH > 9 * number).astype(np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    (folder / "photo.jpg").write_bytes((folder / "photos" / "0.jpg").read_bytes())
    (folder / "people.yaml").write_text(SETTINGS, encoding="utf-8")
    torch.manual_seed(0)
    config = segvit.ModelConfig(**TINY)  # type: ignore[arg-type]
    spec = segvit.DatasetSpec(
        name="people", classes=("background", "person"), palette=((0, 0, 0), (230, 159, 0)), raw_ids=(0, 1)
    )
    protocol = segvit.EvalConfig(mode="whole")
    segvit.create_model(config=config, num_classes=2, spec=spec, protocol=protocol).save(folder / "best.safetensors")
