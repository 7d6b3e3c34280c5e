"""Exported models beside PyTorch, in one run: time, size of the file, mIoU.

    python benchmarks/export.py MODEL... --data.spec camvid --data.root camvid [--images PHOTOS...] [--threads 2]

For each model: PyTorch, then ONNX Runtime in float32, in half precision, in dynamic int8, and in int8 calibrated on the
photos where some are given. Times are from an image to its label map under the model's test protocol, median over
interleaved rounds; every mIoU is over the whole split. On the CPU.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import torch
from cyclopts import App, Parameter
from rich.console import Console

import segvit
from segvit.config import DataConfig
from segvit.data.dataset import open_dataset
from segvit.export.compare import Candidate, score, table
from segvit.export.quantize import ExportPrecision

app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@app.default
def main(
    models: list[Path],
    *,
    data: Annotated[DataConfig, Parameter(name="data")],
    images: tuple[Path, ...] = (),
    split: Literal["train", "val"] = "val",
    threads: int = 2,
) -> None:
    """Print one table for each model."""
    torch.set_num_threads(threads)
    console = Console()
    for path in models:
        model = segvit.load_model(path)
        dataset = open_dataset(data, split, size=model.config.image_size)
        with TemporaryDirectory() as folder:
            candidates = [Candidate(name="PyTorch", network=model, num_bytes=path.stat().st_size)]
            wanted: list[tuple[str, ExportPrecision, tuple[Path, ...]]] = [
                ("fp32", "fp32", ()),
                ("fp16", "fp16", ()),
                ("int8, dynamic", "int8", ()),
            ]
            if images:
                wanted.append(("int8, calibrated", "int8", images))
            for number, (name, precision, photos) in enumerate(wanted):
                exported = segvit.export_onnx(
                    model, Path(folder) / f"{number}.onnx", precision=precision, images=photos
                )
                console.print(exported.lines()[1], highlight=False)
                runtime = segvit.load_onnx(exported.path)
                candidates.append(Candidate(name=f"ONNX {name}", network=runtime, num_bytes=exported.num_bytes))
            title = f"{path.name}, {model.config.structure}, {dataset.spec.name} {split}, {threads} threads"
            console.print(table(score(candidates, dataset, workers=0), title=title))


if __name__ == "__main__":
    app()
