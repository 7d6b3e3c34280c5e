"""From an image tensor to its label map: what the head and the map cost on top of the bare backbone.

    python benchmarks/inference.py [--backbone vit_base_patch16_384] [--size 512] [--classes 150] [--present 12] \\
        [--upsampling tap]

The backbone and the head run on random weights, whose answer says nothing; the label map is made from logits shaped
like a trained model's: the queries of the classes present have +10 on their class, all others +8 on "no object", on
top of N(0, 1), and mask logits are N(0, 3^2). "All alive": every class is present. Medians of interleaved rounds,
batch 1, on the CPU; the ratio is to timm's own ViT at float32.
"""

import argparse
from collections.abc import Callable
from typing import get_args

import timm
import torch
from rich.console import Console
from rich.table import Table
from rounds import measure
from torch import Tensor

import segvit
from segvit.config import HeadClasses, ModelConfig, Structure, Upsampling
from segvit.models.modes import evaluating
from segvit.models.output import is_presence
from segvit.profiling.benchmark import made_up_logits


def labelling(model: segvit.SegViT, images: Tensor, present: int, precision: torch.dtype) -> Callable[[], Tensor]:
    """A run of the model on images (B, 3, H, W), and their label maps of logits of a trained model's shape."""
    device = images.device
    with torch.inference_mode():
        output = model(images[:1], deep=False)
    grid, presence = output.mask_logits.shape[-2:], is_presence(output.class_logits)
    class_logits, mask_logits = (
        made.expand(1, len(images), *made.shape[2:]).to(device)
        for made in made_up_logits(model.num_classes, present, (grid[0], grid[1]), presence=presence)
    )

    def run() -> Tensor:
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            output = model(images, deep=False)
        return segvit.label_map(output._replace(class_logits=class_logits, mask_logits=mask_logits))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_base_patch16_384")
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--present", type=int, default=12, help="classes in the image")
    parser.add_argument(
        "--upsampling", choices=get_args(Upsampling), default=ModelConfig.upsampling, help="that of shrunk"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def create(
        structure: Structure,
        upsampling: Upsampling = ModelConfig.upsampling,
        head_classes: HeadClasses = ModelConfig.head_classes,
    ) -> segvit.SegViT:
        return segvit.create_model(
            options.backbone,
            num_classes=options.classes,
            structure=structure,
            image_size=options.size,
            config=ModelConfig(class_token=False, upsampling=upsampling, head_classes=head_classes),
        ).eval()

    bare = timm.create_model(options.backbone, img_size=options.size, num_classes=0).eval()
    plain, shrunk = create("plain"), create("shrunk", options.upsampling)
    presence = create("plain", head_classes="presence")
    image = torch.rand(1, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    few, float32, bfloat16 = options.present, torch.float32, torch.bfloat16
    candidates: dict[str, Callable[[], object]] = {
        "bare timm forward": lambda: bare.forward_features(image),
        "plain, logits alone": lambda: plain(image, deep=False),
        f"plain, {few} classes present": labelling(plain, image, few, float32),
        "plain, all alive": labelling(plain, image, options.classes, float32),
        f"plain, presence head, {few} classes present": labelling(presence, image, few, float32),
        "plain, presence head, all alive": labelling(presence, image, options.classes, float32),
        "plain, random weights": lambda: plain.predict(image),
        "plain, score volume": lambda: plain.scores(image).argmax(dim=1),
        f"shrunk ({options.upsampling}), {few} classes present": labelling(shrunk, image, few, float32),
        f"plain, {few} classes present, bfloat16": labelling(plain, image, few, bfloat16),
    }
    with (
        torch.inference_mode(),
        evaluating(plain),
        evaluating(presence),
        evaluating(shrunk),
    ):  # as for many images in a row
        seconds = measure(candidates, options.repeats)
    setting = f"{options.backbone}, {options.size} x {options.size}, {options.classes} classes"
    table = Table("", "ms", "x bare", title=f"{setting}, {options.threads} threads, median of {options.repeats}")
    for name, value in seconds.items():
        table.add_row(name, f"{1000 * value:.0f}", f"{value / seconds['bare timm forward']:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
