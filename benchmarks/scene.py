"""Memory, time and resuming of `segvit predict` on a large GeoTIFF, each run in a process of its own.

    python benchmarks/scene.py [--height 20000] [--width 20000] [--bands 4] [--window 512] [--compare 4000] [--kill]

It makes a GeoTIFF of 16 bits, tiled and compressed, and a ViT-Tiny of random weights whose queries are their classes.
Then it runs the command on it, and prints the seconds and the peak memory of the process (VmHWM, Linux). --compare also
labels the upper left square of that side in memory, and counts the pixels that differ. --kill ends a run by SIGKILL
after its first finished row of tiles, resumes it, and compares both label maps.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from rich.console import Console
from rich.table import Table

import segvit
from segvit.config import ModelConfig
from segvit.prediction.names import SCENE_LABELS, SCENE_ROWS
from segvit.prediction.scenes.geotiff import BLOCK

WHITE, SOIL, CELL = 10_000, 1500, 64
"""White of the scene, its lowest value, and the side in pixels of its fields."""
RUN = "import sys; from segvit.cli.main import main; sys.argv = ['segvit', *sys.argv[1:]]; main()"


def make_model(path: Path, options: argparse.Namespace) -> None:
    """Write a model with random weights, in which many classes win somewhere."""
    torch.manual_seed(0)
    spec = segvit.load_spec("camvid")
    spec = replace(spec, bands=tuple(f"band {number}" for number in range(1, options.bands + 1)), white=WHITE)
    config = ModelConfig(class_token=False, init_std=0.05)
    model = segvit.create_model("vit_tiny_patch16_224", spec=spec, image_size=options.window, config=config)
    with torch.no_grad():
        model.head.classifier.weight[:-1] = model.head.class_tokens
        for stage in model.head.stages:
            stage.layers[-1].cross_attn.q.weight.normal_(std=1.0)
    model.save(path)


def make_scene(path: Path, options: argparse.Namespace) -> None:
    """Write a scene of fields with noise, one row of tiles at a time."""
    random = np.random.default_rng(0)
    size = {"height": options.height, "width": options.width, "count": options.bands, "dtype": "uint16"}
    form = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "bigtiff": "if_safer"}
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.5, 0.5)}
    with rasterio.open(path, "w", driver="GTiff", **size, **form, **place) as target:
        for top in range(0, options.height, BLOCK):
            rows = min(BLOCK, options.height - top)
            fields = random.integers(0, 6000, (options.bands, -(-rows // CELL), -(-options.width // CELL)), np.uint16)
            values = fields.repeat(CELL, axis=1).repeat(CELL, axis=2)[:, :rows, : options.width]
            noise = random.integers(0, 300, values.shape, np.uint16)
            target.write(values + noise + np.uint16(SOIL), window=((top, top + rows), (0, options.width)))


def start(model: Path, scene: Path, output: Path) -> "subprocess.Popen[str]":
    """Start the command."""
    words = [sys.executable, "-c", RUN, "predict", str(model), str(scene), "--output", str(output), "--device", "cpu"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def watched(process: "subprocess.Popen[str]") -> tuple[float, float]:
    """Return the seconds that a process takes, and its peak memory in MB."""
    began, peak = time.monotonic(), 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        except OSError:
            pass
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"the command failed with {process.returncode}")
    return time.monotonic() - began, peak / 1024


def labels_of(output: Path) -> np.ndarray:
    """Read the label map."""
    with rasterio.open(output / f"scene{SCENE_LABELS}") as source:
        found: np.ndarray = source.read(1)
    return found


def compared(model: Path, scene: Path, folder: Path, side: int) -> tuple[int, int]:
    """Label the upper left square in memory and by the command; return the pixels that differ, and the classes seen."""
    part = folder / "part" / "scene.tif"
    part.parent.mkdir()
    with rasterio.open(scene) as source:
        with rasterio.open(part, "w", **{**source.profile, "height": side, "width": side}) as target:
            target.write(source.read(window=((0, side), (0, side))))
        streamed = folder / ("whole" if source.shape == (side, side) else "compared")
    if not streamed.exists():
        watched(start(model, part, streamed))
    labels = segvit.predict(segvit.load_model(model), part).labels
    return int((labels != labels_of(streamed)).sum()), len(np.unique(labels))


def killed_and_resumed(model: Path, scene: Path, folder: Path) -> bool:
    """Kill a run after its first row of tiles, resume it, and return True if its labels are the whole run's."""
    process, log = start(model, scene, folder / "killed"), folder / "killed" / f"scene{SCENE_ROWS}"
    while process.poll() is None and not (log.exists() and log.stat().st_size > 1000):
        time.sleep(0.1)
    if process.poll() is not None:
        raise SystemExit("the run ended before it could be killed: give a larger --height")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "killed" / f"scene{SCENE_LABELS}").exists()
    watched(start(model, scene, folder / "killed"))
    return bool((labels_of(folder / "killed") == labels_of(folder / "whole")).all())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=20_000)
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--compare", type=int, metavar="SIDE")
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    table = Table("what", "result")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, scene = folder / "model.safetensors", folder / "scene.tif"
        make_model(model, options)
        make_scene(scene, options)
        seconds, peak = watched(start(model, scene, folder / "whole"))
        table.add_row("scene", f"{options.height} x {options.width} x {options.bands}, 16 bits")
        table.add_row("seconds", f"{seconds:.0f}")
        table.add_row("peak memory", f"{peak:.0f} MB")
        if options.compare:
            differing, classes = compared(model, scene, folder, options.compare)
            table.add_row("compared in memory", f"{differing} of {options.compare**2} pixels differ, {classes} classes")
        if options.kill:
            table.add_row("killed and resumed", "equal" if killed_and_resumed(model, scene, folder) else "DIFFERENT")
    Console().print(table)


if __name__ == "__main__":
    main()
