"""From an image tensor to its label map: segvit beside the bare backbone and the models of transformers, in one run.

    pip install transformers
    python benchmarks/peers.py [--size 512] [--repeats 5] [--only bare segvit eomt] [--memory]

Random weights in float32, 150 classes, batch 1, on the CPU; nothing is downloaded: the configs below are those of the
published models, and the numbers of parameters tell. Every round runs each model once, in turn; medians are told.
Peers get normalised images, run without auxiliary heads and are turned into labels by their own image processors, at
the size of the image. segvit normalises inside. What its label map costs depends on the logits: rows with "in view"
take them shaped like a trained model's (benchmarks/inference.py).

--memory measures the most that a pass takes on top of the model, each in a process of its own (Linux).
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import timm
import torch
from inference import labelling
from rich.console import Console
from rich.table import Table
from rounds import measure
from torch import Tensor, nn

import segvit
from segvit.config import ModelConfig, Structure, Upsampling
from segvit.profiling.benchmark import peak_memory

CLASSES = 150
BACKBONE = "vit_base_patch16_384"
Run = Callable[[], object]


class Candidate(NamedTuple):
    """A model, and a run of it from an image to its label map."""

    model: nn.Module
    run: Run


def import_transformers() -> object:
    """The package of the peers, or what to type."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        sys.exit("error: the peers are models of the package transformers: pip install transformers")
    transformers.logging.set_verbosity_error()
    return transformers


def bare(image: Tensor) -> Candidate:
    """timm's ViT-B/16, without any head."""
    model = timm.create_model(BACKBONE, img_size=image.shape[-1], num_classes=0).eval()
    return Candidate(model, lambda: model.forward_features(image))


def ours(
    image: Tensor, structure: Structure, present: int | None, upsampling: Upsampling = ModelConfig.upsampling
) -> Candidate:
    """SegViT-Base; with `present` classes in view, or labels of its random logits as they are."""
    model = segvit.create_model(
        BACKBONE,
        num_classes=CLASSES,
        structure=structure,
        image_size=image.shape[-1],
        config=ModelConfig(class_token=False, upsampling=upsampling),
    ).eval()
    if present is None:
        return Candidate(model, lambda: model.predict(image))
    return Candidate(model, labelling(model, image, present, torch.float32))


def peer(image: Tensor, model: nn.Module, processor: object, **settings: object) -> Candidate:
    """A model of transformers and the image processor that turns what it gives into labels."""
    model.eval()
    size = (image.shape[2], image.shape[3])

    def run() -> Tensor:
        outputs = model(pixel_values=image)
        (labels,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[size], **settings)
        assert labels.shape == size
        return labels

    return Candidate(model, run)


def eomt(image: Tensor, *, masked: bool = False) -> Candidate:
    """EoMT-B: ViT-B/16 with 4 registers, 100 queries through the last 3 blocks.

    Its training starts with masked attention and anneals it away: the trained model runs without, which is faster.
    """
    hf, size = import_transformers(), image.shape[-1]
    config = hf.EomtConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=size,
        patch_size=16,
        num_blocks=3,
        num_queries=100,
        num_upscale_blocks=2,
        num_labels=CLASSES,
    )
    model = hf.EomtForUniversalSegmentation(config)
    model.attn_mask_probs.fill_(1 if masked else 0)
    square = {"shortest_edge": size, "longest_edge": size}
    return peer(image, model, hf.EomtImageProcessor(size=square), size=square)


def segformer(image: Tensor) -> Candidate:
    """SegFormer-B5."""
    hf = import_transformers()
    config = hf.SegformerConfig(
        depths=[3, 6, 40, 3], hidden_sizes=[64, 128, 320, 512], decoder_hidden_size=768, num_labels=CLASSES
    )
    return peer(image, hf.SegformerForSemanticSegmentation(config), hf.SegformerImageProcessor())


def upernet(image: Tensor) -> Candidate:
    """UPerNet on BEiT-B/16, taps after blocks 4, 6, 8 and 12 (as published: [3, 5, 7, 11] from 0)."""
    hf = import_transformers()
    config = hf.BeitConfig(
        image_size=image.shape[-1],
        use_relative_position_bias=True,
        out_indices=[4, 6, 8, 12],  # counted from 1
        use_auxiliary_head=False,
        num_labels=CLASSES,
    )
    return peer(image, hf.BeitForSemanticSegmentation(config), hf.BeitImageProcessor())


def mask2former(image: Tensor) -> Candidate:
    """Mask2Former on Swin-T, 100 queries, 9 decoder layers."""
    hf = import_transformers()
    swin = hf.SwinConfig(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = hf.Mask2FormerConfig(backbone_config=swin, num_queries=100, decoder_layers=10, num_labels=CLASSES)
    return peer(image, hf.Mask2FormerForUniversalSegmentation(config), hf.Mask2FormerImageProcessor())


def dpt(image: Tensor) -> Candidate:
    """DPT-B on ViT-B/16."""
    hf = import_transformers()
    config = hf.DPTConfig(image_size=image.shape[-1], use_auxiliary_head=False, num_labels=CLASSES)
    return peer(image, hf.DPTForSemanticSegmentation(config), hf.DPTImageProcessor())


CANDIDATES: dict[str, tuple[str, Callable[[Tensor], Candidate]]] = {
    "bare": ("bare timm ViT-B/16 forward", bare),
    "segvit": ("segvit Base plain, 12 in view", lambda image: ours(image, "plain", 12)),
    "segvit-all": ("segvit Base plain, 150 in view", lambda image: ours(image, "plain", CLASSES)),
    "segvit-random": ("segvit Base plain, random logits", lambda image: ours(image, "plain", None)),
    "segvit-shrunk": ("segvit Base shrunk (tap), 12 in view", lambda image: ours(image, "shrunk", 12)),
    "segvit-shrunk-paper": ("segvit Base shrunk (paper), 12 in view", lambda image: ours(image, "shrunk", 12, "paper")),
    "eomt": ("EoMT-B", eomt),
    "eomt-masked": ("EoMT-B, attention masked", lambda image: eomt(image, masked=True)),
    "segformer": ("SegFormer-B5", segformer),
    "upernet": ("UPerNet, BEiT-B", upernet),
    "mask2former": ("Mask2Former, Swin-T", mask2former),
    "dpt": ("DPT-B", dpt),
}
REFERENCES = ("bare", "segvit")
"""What the ratios are to, where it is run."""


def random_image(size: int) -> Tensor:
    """An image (1, 3, size, size) in 0..1."""
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def print_peak(key: str, size: int) -> None:
    """Print the MiB that a pass of a model takes at most on top of it."""
    make = CANDIDATES[key][1]
    with torch.inference_mode():
        make(random_image(64)).run()  # libraries and their buffers
        print(peak_memory(make(random_image(size)).run) // 2**20)


def peak_apart(key: str, options: argparse.Namespace) -> int:
    """`print_peak` in a process of its own."""
    flags = ["--threads", str(options.threads), "--size", str(options.size), "--peak-of", key]
    done = subprocess.run([sys.executable, __file__, *flags], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peak memory too")
    parser.add_argument("--peak-of", choices=CANDIDATES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print_peak(options.peak_of, options.size)
        return
    torch.manual_seed(0)
    image = random_image(options.size)
    made = {key: CANDIDATES[key][1](image) for key in options.only}
    with torch.inference_mode():
        seconds = measure({key: candidate.run for key, candidate in made.items()}, options.repeats)
    setting = f"{options.size} x {options.size}, {CLASSES} classes, float32"
    table = Table(title=f"{setting}, {options.threads} threads, median of {options.repeats}")
    references = [key for key in REFERENCES if key in made]
    table.add_column("")
    for heading in ("M parameters", "ms", *(f"x {key}" for key in references)):
        table.add_column(heading, justify="right")
    if options.memory:
        table.add_column("peak MiB", justify="right")
    for key, candidate in made.items():
        parameters = sum(parameter.numel() for parameter in candidate.model.parameters())
        row = [CANDIDATES[key][0], f"{parameters / 1e6:.1f}", f"{1000 * seconds[key]:.0f}"]
        row += [f"{seconds[key] / seconds[reference]:.2f}" for reference in references]
        table.add_row(*row, *([str(peak_apart(key, options))] if options.memory else []))
    Console().print(table)


if __name__ == "__main__":
    main()
