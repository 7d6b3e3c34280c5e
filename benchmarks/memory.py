"""Peak memory of predicting one large photo in windows, and of the naive way, in processes of their own.

    python benchmarks/memory.py [--backbone vit_base_patch16_384] [--classes 150] [--size 1435 2943] [--window 512]

Peak is VmHWM (Linux) of a process that labels a photo by `segvit.predict`, less what it held with the model loaded; and
that of a process that runs the model on one window, for comparison: the rest is the photo and its label map. The naive
way holds the scores (K, H, W): added up over the windows, resized to the image, argmax. Both answers are compared pixel
by pixel; where they differ, the two best scores must tie to 1e-6. Random weights, float32, on the CPU.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

import segvit
from segvit.config import EvalConfig, ModelConfig
from segvit.data.images import read_image
from segvit.inference.protocol import protocol_size
from segvit.inference.windows import window_starts
from segvit.models.scores import scores
from segvit.utils.resize import resize

PROTOCOLS = {"native": EvalConfig(), "resized": EvalConfig(resize_long=2048, resize_short=512)}
TIE = 1e-6


def create(options: argparse.Namespace) -> segvit.SegViT:
    """A model with random weights, but with queries that are their classes and masks that vary: many win somewhere."""
    torch.manual_seed(0)
    config = ModelConfig(class_token=False, init_std=0.05)
    model = segvit.create_model(options.backbone, num_classes=options.classes, image_size=options.window, config=config)
    with torch.no_grad():
        model.head.classifier.weight[:-1] = model.head.class_tokens
        for stage in model.head.stages:
            stage.layers[-1].cross_attn.q.weight.normal_(std=1.0)
    return model.eval()


def naive_scores(model: segvit.SegViT, image: Tensor, protocol: EvalConfig, window: int, stride: int) -> Tensor:
    """Scores (K, H, W), the obvious way."""
    size = (image.shape[1], image.shape[2])
    image = resize(image, protocol_size(*size, protocol))
    _, height, width = image.shape
    total, count = torch.zeros(model.num_classes, height, width), torch.zeros(height, width)
    for top in window_starts(height, window, stride):
        for left in window_starts(width, window, stride):
            area = (slice(top, top + window), slice(left, left + window))
            total[:, *area] += scores(model(image[None, :, *area], deep=False))[0]
            count[area] += 1
    total /= count
    if (height, width) == size:
        return total
    return F.interpolate(total[None], size=size, mode="bilinear", align_corners=False)[0]


def make_photo(file: Path, size: tuple[int, int]) -> None:
    """A file of random blots, so that patches differ."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    image = F.avg_pool2d(image.float(), 9, 1, 4).mul_(3).sub_(255).clamp_(0, 255).byte()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)


def held(mark: str) -> int:
    """MiB that this process holds now (VmRSS), or has held at most (VmHWM)."""
    found = re.search(rf"{mark}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def run(way: str, options: argparse.Namespace) -> None:
    """What one process does; it prints its peak in MiB above the loaded model."""
    folder, window = Path(options.folder), options.window
    photo, answer = folder / "photo.png", folder / "labels.pt"
    protocol = PROTOCOLS[options.protocol]
    with torch.inference_mode():
        model = create(options)
        loaded = held("VmRSS")
        if way == "window":
            model(torch.zeros(1, 3, window, window, dtype=torch.uint8), deep=False)
        elif way == "ours":
            labels = torch.from_numpy(segvit.predict(model, photo, config=protocol).labels)
        else:
            image = pil_to_tensor(read_image(photo))
            volume = naive_scores(model, image, protocol, window, window * 2 // 3)
            labels = volume.argmax(dim=0)
    print(held("VmHWM") - loaded)
    if way == "ours":
        torch.save(labels, answer)
    elif way == "naive":
        ours = torch.load(answer)
        differ = labels != ours
        gap = volume.max(dim=0).values - volume.gather(0, ours[None])[0]
        print(int(differ.sum()), int((gap > TIE).sum()), len(labels.unique()))


def start(way: str, options: argparse.Namespace, protocol: str, folder: str) -> list[str]:
    """`run` in a process of its own: the words that it prints."""
    flags = ["--backbone", options.backbone, "--classes", str(options.classes), "--window", str(options.window)]
    flags += ["--size", *map(str, options.size), "--run", way, "--protocol", protocol, "--folder", folder]
    done = subprocess.run([sys.executable, __file__, *flags], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_base_patch16_384")
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--size", type=int, nargs=2, default=[1435, 2943], help="height and width in pixels")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--naive", action=argparse.BooleanOptionalAction, default=True, help="beside the naive way")
    parser.add_argument("--run", choices=("window", "ours", "naive"), help=argparse.SUPPRESS)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="native", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run, options)
        return
    height, width = options.size
    title = f"{options.backbone}, {options.classes} classes, {width} x {height}, windows of {options.window}"
    table = Table("protocol", "MiB above the model", "naive", "pixels that differ", "beyond a tie", title=title)
    with tempfile.TemporaryDirectory() as folder:
        make_photo(Path(folder) / "photo.png", options.size)
        table.add_row("one window alone", start("window", options, "native", folder)[0])
        for protocol in PROTOCOLS:
            (ours,) = start("ours", options, protocol, folder)
            if not options.naive:
                table.add_row(protocol, ours)
                continue
            naive, differ, wrong, present = start("naive", options, protocol, folder)
            table.add_row(protocol, ours, naive, f"{differ} of {height * width}, {present} classes", wrong)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
