"""The command `segvit bench`."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segvit.cli.flags import TERMINAL, BackboneFlags, JsonFile, bar, check_json, check_paths, to_json, write_json
from segvit.config import Device, PrecisionName
from segvit.errors import UserError

PRESENT = 12
"""Number of classes present in the logits made up for a model with random weights."""

Several = Parameter(negative=())


def bench(
    model: str,
    *,
    size: Annotated[tuple[str, ...], Several] = (),
    batch: Annotated[tuple[int, ...], Several] = (1,),
    precision: Annotated[tuple[PrecisionName, ...], Several] = ("fp32",),
    compile: bool = False,
    repeats: int = 10,
    threads: int | None = None,
    image: Path | None = None,
    memory: bool = True,
    backbone: BackboneFlags = BackboneFlags(),
    json: JsonFile = None,
    plot: Path | None = None,
    device: Device = "auto",
) -> None:
    """Time a model from image tensor to label map: latency, throughput, peak memory, share of each part.

    Each round runs every combination of size, batch and precision once; the medians over the rounds are reported. A
    config or backbone gets random weights.

    Parameters
    ----------
    model
        Model file, config, or timm backbone.
    size
        Image sizes in pixels: sides of squares, or HEIGHTxWIDTH, such as 512 480x640. Default: the training crop.
    batch
        Batch sizes: numbers of images that run through the model together.
    precision
        Precisions to compute in; fp16 does not run on a CPU.
    compile
        Compile the model first (torch.compile), which takes a minute or two per precision, and again for batches above
        1. Backbone and head then count as one part.
    repeats
        Number of rounds.
    threads
        Number of CPU threads. Default: torch's choice.
    image
        Photo to run on, resized to each size. Default: noise.
    memory
        Also measure the peak memory; on a CPU, each combination runs in its own process (Linux only).
    json
        Also write everything to this JSON file; - prints JSON and nothing else.
    plot
        Also draw charts in this file: .png, .pdf or .svg.
    device
        Device to run on.
    """
    from segvit.data.bands.reading import image_size
    from segvit.pictures.formats import check_figure_path

    check_json(json)
    if plot:
        check_figure_path(plot, "--plot")
    check_paths(files=(None if json == TERMINAL else json, plot))
    if threads is not None and threads < 1:
        raise UserError(f"--threads {threads}: give 1 or more")
    sizes = [_size(text) for text in size]
    if image:
        image_size(image)
    import torch
    from rich import print as rich_print

    from segvit.inference.compiled import compile_model
    from segvit.pictures import speeds
    from segvit.profiling.benchmark import bench as run_bench
    from segvit.profiling.info import find_network
    from segvit.utils.device import resolve_device
    from segvit.weights.load import load_model

    if threads is not None:
        torch.set_num_threads(threads)
    place = resolve_device(device)
    named = find_network(model, **asdict(backbone))
    network = load_model(model, device=place) if named.header else named.build().to(place)
    if compile:
        compile_model(network)
    with bar("timing", shown=json != TERMINAL) as progress:
        result = run_bench(
            network,
            sizes=sizes,
            batches=batch,
            precisions=precision,
            repeats=repeats,
            image=image,
            present=None if named.header else min(PRESENT, network.num_classes),
            memory=memory,
            progress=progress,
        )
    content = {"name": model, **result.to_dict()}
    if json == TERMINAL:
        print(to_json(content))
    else:
        rich_print(result.table())
        if json:
            write_json(json, content)
    if plot:
        plot.parent.mkdir(parents=True, exist_ok=True)
        speeds(content["timings"], plot, title=result.title, place=result.place)


def _size(text: str) -> tuple[int, int]:
    """Return the height and width of a --size."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise UserError(f"--size {text}: give sides in whole pixels, such as 512 for a square or 480x640 for H x W")
    return int(match[1]), int(match[2] or match[1])
