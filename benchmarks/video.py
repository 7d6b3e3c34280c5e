"""`segvit predict` on video: frames per second, what each step costs, and peak memory by length.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/video.py PHOTOS [--size 480x640] [--frames 300] [--lengths 300 3000]

The video is a moving crop of the photos of a folder. First each step alone, in milliseconds of a frame: decoding, the
model, painting, encoding; then the whole, in turn and with threads, in interleaved rounds. Then memory (on Linux) of
processes that label videos of several lengths: its peak (VmHWM), and what is held (VmRSS) after half of the frames and
after the last, which must not grow. Without --model: a ViT-Tiny with random weights and 11 classes, in windows of 256.
On the CPU unless --device says otherwise.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from rounds import measure

import segvit
from segvit.config import ModelConfig
from segvit.inference.protocol import batch_labels, images_per_batch
from segvit.prediction.photo import Prediction
from segvit.prediction.predict import predict
from segvit.prediction.video import predict_video
from segvit.prediction.video_options import VideoOptions
from segvit.video.reader import Frame, Pixels, open_video
from segvit.video.writer import VideoWriter

RATE = Fraction(30)


def pictures(folder: Path, size: tuple[int, int], count: int) -> Iterator[Pixels]:
    """A crop (H, W, 3) that moves over a photo for two seconds, then over the next one."""
    room, each = 60, 60
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    for start, path in zip(range(0, count, each), itertools.cycle(paths)):
        photo = np.asarray(Image.open(path).convert("RGB").resize((size[1] + room, size[0] + room)))
        for place in range(min(each, count - start)):
            yield np.ascontiguousarray(photo[place : place + size[0], place : place + size[1]])


def write_film(path: Path, folder: Path, size: tuple[int, int], count: int) -> Path:
    with VideoWriter(path, size=size, time_base=1 / RATE, rate=RATE) as writer:
        for number, picture in enumerate(pictures(folder, size, count)):
            writer.write(picture, number)
    return path


def create(options: argparse.Namespace) -> segvit.SegViT:
    torch.set_num_threads(options.threads)
    if options.model:
        model = segvit.load_model(options.model)
    else:
        torch.manual_seed(0)
        config = ModelConfig(class_token=False)
        model = segvit.create_model("vit_tiny_patch16_224", num_classes=11, image_size=256, config=config)
    return model.eval().to(options.device)


def measure_steps(options: argparse.Namespace, film: Path, folder: Path) -> None:
    """Print what a frame costs: each step alone, and the whole."""
    model = create(options)
    with open_video(film) as video:
        frames: list[Frame] = list(itertools.islice(video.frames(), options.frames))
        together = images_per_batch(model, model.protocol, video.size)
        size = video.size
    results = [predict(model, frame.image) for frame in frames]
    overlays = [np.asarray(result.overlay(legend=False)) for result in results]
    images = [torch.from_numpy(frame.image.transpose(2, 0, 1).copy()) for frame in frames]
    numbers = itertools.count()

    def decode() -> None:
        with open_video(film) as opened:
            assert sum(1 for _ in opened.frames()) == options.frames

    def run_model() -> None:
        for start in range(0, len(images), together):
            for labels in batch_labels(model, torch.stack(images[start : start + together]), model.protocol):
                labels.cpu()

    def paint() -> None:
        for result in results:
            assert isinstance(result, Prediction)
            result.overlay(legend=False)

    def encode() -> None:
        with VideoWriter(folder / "encoded.mp4", size=size, time_base=1 / RATE, rate=RATE) as writer:
            for number, overlay in enumerate(overlays):
                writer.write(overlay, number)

    def whole(workers: int) -> Callable[[], object]:
        target = folder / "seen"
        return lambda: predict_video(model, film, target / f"{workers}-{next(numbers)}", workers=workers)

    names = {"decoding alone": decode, "model alone": run_model, "painting alone": paint, "encoding alone": encode}
    wholes = {"all in turn": whole(0), "1 thread decodes, 2 paint, 1 encodes": whole(2)}
    seconds = measure(names | wholes, options.repeats)
    alone = sum(seconds[name] for name in names)
    title = f"{options.frames} frames of {size[1]} x {size[0]}, {together} through the model together"
    table = Table("", "ms / frame", "frames / s", "% of the steps", title=f"{title}, {options.threads} threads")
    for name, value in seconds.items():
        share = f"{100 * value / alone:.0f}" if name in names else ""
        table.add_row(name, f"{1000 * value / options.frames:.1f}", f"{options.frames / value:.1f}", share)
    Console().print(table)


def measure_memory(options: argparse.Namespace, folder: Path, photos: Path) -> None:
    """Print the peak memory of processes that label videos of several lengths."""
    table = Table(
        "frames", "peak MB", "held at half, MB", "held at the end, MB", "frames / s", title="memory by length"
    )
    for length in options.lengths:
        film = write_film(folder / f"{length}.mp4", photos, options.size, length)
        words = [sys.executable, __file__, str(film), "--one", "--threads", str(options.threads)]
        words += ["--resize", str(options.resize)] * bool(options.resize) + ["--model", options.model] * bool(
            options.model
        )
        done = subprocess.run([*words, "--device", options.device], capture_output=True, text=True, check=True)
        peak, half, end, seconds = map(float, done.stdout.split())
        table.add_row(str(length), f"{peak:.0f}", f"{half:.0f}", f"{end:.0f}", f"{length / seconds:.1f}")
        film.unlink()
    Console().print(table)


def label_one(options: argparse.Namespace) -> None:
    """Label a video and print this process's memory in MB (peak, at half, at the end), and the seconds it took."""
    model, start, held = create(options), time.perf_counter(), []

    def note(done: int, total: int | None) -> None:
        if total and done in (total // 2, total):
            held.append(memory("VmRSS"))

    with tempfile.TemporaryDirectory() as folder:
        video = VideoOptions(resize=options.resize)
        predict_video(model, options.photos, Path(folder) / "seen", options=video, progress=note)
    seconds = time.perf_counter() - start
    print(memory("VmHWM"), *held, seconds)


def memory(name: str) -> float:
    """What the system says about this process, in MB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def size_of(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("--size", type=size_of, default=(480, 640), help="height x width in pixels")
    parser.add_argument("--frames", type=int, default=60, help="to measure the steps with; 0: leave that out")
    parser.add_argument("--lengths", type=int, nargs="*", default=[300, 3000], help="frames of the videos for memory")
    parser.add_argument("--resize", type=int, help="for memory: as of segvit predict")
    parser.add_argument("--model", help="a model of segvit")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        label_one(options)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if options.frames:
            film = write_film(folder / "film.mp4", options.photos, options.size, options.frames)
            measure_steps(options, film, folder)
        if options.lengths:
            measure_memory(options, folder, options.photos)


if __name__ == "__main__":
    main()
