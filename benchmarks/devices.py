"""Files for phones and boards beside PyTorch, on this machine's CPU: labels, size of the file, time of one image.

    python benchmarks/devices.py best.safetensors --format executorch --images a.jpg b.jpg c.jpg --size 512 512
    python benchmarks/devices.py best.safetensors --format litert --images a.jpg b.jpg c.jpg --precisions fp32 int8

Times are from a uint8 image of the given size to its label map, median over interleaved rounds. ExecuTorch and LiteRT
each run here in their own runtime; Core ML does not.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import torch
from cyclopts import App, Parameter
from rounds import measure

import segvit
from segvit.export.formats.table import FORMATS
from segvit.export.graph import LabelGraph
from segvit.export.quantize import ExportPrecision
from segvit.inference.network import image_for
from segvit.utils.resize import resize

app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@app.default
@torch.no_grad()
def main(
    path: Path,
    *,
    format: Literal["executorch", "litert"],
    images: tuple[Path, ...],
    size: Annotated[tuple[int, int], Parameter(consume_multiple=False)] = (512, 512),
    precisions: tuple[ExportPrecision, ...] = ("fp32",),
    repeats: int = 5,
    threads: int = 2,
) -> None:
    """Print one line for PyTorch and for each precision."""
    torch.set_num_threads(threads)
    model, form = segvit.load_model(path), FORMATS[format]
    graph = LabelGraph(model, with_scores=False)
    batches = [resize(image_for(model, image), size)[None] for image in images]
    expected = [graph(batch)[0] for batch in batches]
    for precision in precisions:
        with TemporaryDirectory() as folder:
            exported = segvit.export_model(model, Path(folder) / f"model{form.suffix}", precision=precision, size=size)
            run = form.run(exported.path)
            differing = [float((run(batch) != labels).double().mean()) for batch, labels in zip(batches, expected)]
            seconds = measure({"PyTorch": partial(graph, batches[0]), format: partial(run, batches[0])}, repeats)
            print(f"{path.name}, {size[0]} x {size[1]}, {threads} threads, {format} {precision}")
            print(f"  other labels in each image: {', '.join(f'{100 * share:.3f} %' for share in differing)}")
            print(f"  {exported.num_bytes / 1e6:.1f} MB; PyTorch's weights {path.stat().st_size / 1e6:.1f} MB")
            print("  " + ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items()))


if __name__ == "__main__":
    app()
