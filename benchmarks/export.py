"""Exported models beside PyTorch, in one run: time, size of the file, mIoU, and agreement of the labels.

    python benchmarks/export.py plain.safetensors shrunk.safetensors --data.spec camvid --data.root camvid \\
        --images camvid/train [--rows "ONNX fp32" "OpenVINO fp32"] [--threads 2]

For each model one table: PyTorch in float32, then ONNX Runtime and OpenVINO in float32, half precision and int8. Times
are from an image to its label map under the model's test protocol, median over interleaved rounds. The column x is the
ratio to PyTorch. Every mIoU is over the whole split. On the CPU.

Before each table, the labels of the float32 files are compared with PyTorch's at four sizes. If more than 0.1 % differ,
the run ends with an error.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NamedTuple

import torch
from cyclopts import App, Parameter
from rich.console import Console

import segvit
from segvit.config import DataConfig
from segvit.data.dataset import Samples, open_dataset
from segvit.export.compare import Candidate, score, table
from segvit.export.quantize import ExportPrecision
from segvit.inference.runtimes import load_exported
from segvit.utils.resize import resize

SIZES = ((512, 512), (480, 640), (333, 517), (256, 704))
"""(H, W) in pixels at which labels are compared."""
COMPARED, MOST_DIFFERING = 2, 0.001
"""Images compared at each size, and maximum share of their pixels with another label."""

app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


class Row(NamedTuple):
    """A file to write and measure."""

    name: str
    suffix: str
    precision: ExportPrecision
    calibrated: bool = False


ROWS = (
    Row("ONNX fp32", ".onnx", "fp32"),
    Row("ONNX fp16", ".onnx", "fp16"),
    Row("ONNX int8, dynamic", ".onnx", "int8"),
    Row("ONNX int8, calibrated", ".onnx", "int8", calibrated=True),
    Row("OpenVINO fp32", ".xml", "fp32"),
    Row("OpenVINO fp16", ".xml", "fp16"),
    Row("OpenVINO int8, calibrated", ".xml", "int8", calibrated=True),
)


@app.default
def main(
    models: list[Path],
    *,
    data: Annotated[DataConfig, Parameter(name="data")],
    images: tuple[Path, ...] = (),
    rows: tuple[str, ...] = (),
    split: Literal["train", "val"] = "val",
    threads: int = 2,
) -> None:
    """Print one table for each model. Default rows: all, those calibrated only with --images."""
    torch.set_num_threads(threads)
    console = Console()
    chosen = [row for row in ROWS if row.name in rows or (not rows and (images or not row.calibrated))]
    for path in models:
        model = segvit.load_model(path)
        dataset = open_dataset(data, split, size=model.image_size)
        with TemporaryDirectory() as folder:
            candidates = [Candidate(name="PyTorch fp32", network=model, num_bytes=path.stat().st_size)]
            for number, row in enumerate(chosen):
                exported = segvit.export_model(
                    model,
                    Path(folder) / f"{number}{row.suffix}",
                    precision=row.precision,
                    images=images if row.calibrated else (),
                )
                console.print(f"{row.name}: {exported.agreement}", highlight=False)
                runtime = load_exported(exported.path, device="cpu")
                if row.precision == "fp32":
                    console.print(f"{row.name}: {agreement(model, runtime, dataset)}", highlight=False)
                candidates.append(Candidate(name=row.name, network=runtime, num_bytes=exported.num_bytes))
            title = f"{path.name}, {model.config.structure}, {dataset.spec.name} {split}, {threads} threads"
            console.print(table(score(candidates, dataset, workers=0), title=title))


def agreement(model: Any, runtime: Any, dataset: Samples) -> str:
    """Compare the labels of whole images with PyTorch's at `SIZES`, in one batch each.

    Raises:
        SystemExit: more than `MOST_DIFFERING` differ at a size.
    """
    found = []
    for height, width in SIZES:
        indices = range(min(COMPARED, len(dataset)))
        batch = torch.stack([resize(dataset.read(index).image, (height, width)) for index in indices])
        differing = float((runtime.predict(batch) != model.predict(batch)).double().mean())
        found.append(f"{height} x {width} {100 * (1 - differing):.3f} %")
        if differing > MOST_DIFFERING:
            raise SystemExit(f"other labels than PyTorch's: equal at {found[-1]}")
    return f"equal labels at {', '.join(found)}"


if __name__ == "__main__":
    app()
