"""Time a model: latency, throughput, peak memory, and the share of each part.

    segvit.bench(model, sizes=[(512, 512), (480, 640)], batches=[1, 8], precisions=["fp32", "bf16"]).table()

A pass goes from an image tensor to its label map. Every round runs each case once, so that noise of the machine hits
all cases alike. The first rounds warm up and are not counted. On a CPU each case runs once more, in a separate process
(this module, as a program). Its peak memory is then its own: the peak of a process never falls.

Letters: B batch, K classes (and queries), H W image, h w token grid.
"""

import ctypes
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from segvit.config import PrecisionName
from segvit.errors import UserError
from segvit.inference.compiled import compile_model, is_compiled
from segvit.inference.label_map import label_map
from segvit.inference.network import described, image_for
from segvit.inference.precision import check_precision, computing_in, resolve_precision
from segvit.models.modes import evaluating
from segvit.models.output import SegOutput, is_presence
from segvit.models.segvit import SegViT
from segvit.profiling.timings import Bench, Case, Timing
from segvit.utils.device import device_name
from segvit.utils.progress import Progress
from segvit.utils.resize import resize
from segvit.weights.load import load_model

WARM_UP = 2
"""Rounds that are not counted."""
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Files in which Linux reports the memory of a process, and resets its peak."""


def bench(
    model: SegViT,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    batches: Sequence[int] = (1,),
    precisions: Sequence[PrecisionName] = ("fp32",),
    repeats: int = 10,
    image: str | Path | None = None,
    present: int | None = None,
    memory: bool = True,
    progress: Progress | None = None,
) -> Bench:
    """Time a model on the device where it is, over every combination of sizes, batches and precisions.

    Args:
        model: any weights will do; only the time of the label map depends on them. In a compiled model, backbone and
            head are one part.
        sizes: (H, W) of images in pixels. Default: the training crop.
        batches: numbers of images that go through the model together.
        precisions: precisions to compute in, by autocast.
        repeats: number of counted rounds.
        image: a photo, resized to each size. Default: noise.
        present: for random weights: number of classes in the image. The label map is then computed from made-up logits
            shaped like a trained model's. Default: the model's own logits.
        memory: measure the peak memory too (on cuda, and on the CPU under Linux).
        progress: called with the number of rounds and processes done, and their total.

    Raises:
        UserError: a size, a batch or a number of rounds is below 1, the device lacks a precision, or memory runs out.
    """
    device = model.mean.device
    side = model.image_size
    cases = _cases(sizes or [(side, side)], batches, precisions, device)
    if repeats < 1:
        raise UserError(f"{repeats} rounds: give 1 or more")
    if present is not None and not 1 <= present <= model.num_classes:
        raise UserError(f"{present} classes present: the model has {model.num_classes}")
    apart = memory and device.type == "cpu" and CLEAR_REFS.exists()
    total = WARM_UP + repeats + (len(cases) if apart else 0)
    passes: list[list[tuple[float, ...]]] = [[] for _ in cases]
    with evaluating(model):
        runs = [_Run(model, case, image=image, present=present) for case in cases]
        peaks = [run.peak_on_cuda() if memory and device.type == "cuda" else None for run in runs]
        for done in range(1, WARM_UP + repeats + 1):
            for run, seconds in zip(runs, passes, strict=True):
                seconds.append(run())
            if progress:
                progress(done, total)
    if apart:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            model.save(file)
            for index, case in enumerate(cases):
                peaks[index] = _peak_apart(file, case, image=image, present=present, compiled=is_compiled(model))
                if progress:
                    progress(WARM_UP + repeats + index + 1, total)
    timings = [
        Timing(case=case, passes=tuple(seconds[WARM_UP:]), peak=peak)
        for case, seconds, peak in zip(cases, passes, peaks, strict=True)
    ]
    return Bench(model=_facts(model), machine=_machine(device), present=present, timings=tuple(timings))


def _cases(
    sizes: Sequence[tuple[int, int]],
    batches: Sequence[int],
    precisions: Sequence[PrecisionName],
    device: torch.device,
) -> list[Case]:
    """Return every combination once, in the order given."""
    for height, width in sizes:
        if min(height, width) < 1:
            raise UserError(f"size {height} x {width}: give sides of 1 pixel or more, such as 512 or 480x640")
    for batch in batches:
        if batch < 1:
            raise UserError(f"a batch of {batch} images: give 1 or more")
    for precision in precisions:
        check_precision(precision, device)
    combinations = product(dict.fromkeys(sizes), dict.fromkeys(batches), dict.fromkeys(precisions))
    return [Case(size=size, batch=batch, precision=precision) for size, batch, precision in combinations]


class _Run:
    """A case, ready to be timed pass by pass.

    Args:
        model: a model in evaluation mode.
        case: the case to time.
        image, present: see `bench`.
    """

    def __init__(self, model: SegViT, case: Case, *, image: str | Path | None, present: int | None) -> None:
        self.model, self.case, self.device = model, case, model.mean.device
        self.images = _images(model, case, image).to(self.device)
        self.precision = resolve_precision(model, case.precision)
        self.whole = is_compiled(model)
        self.made_up: tuple[Tensor, Tensor] | None = None
        if present is not None:
            with computing_in(self.precision, self.device):
                output = self.forward(self.images[:1])
            grid, presence = output.mask_logits.shape[-2:], is_presence(output.class_logits)
            class_logits, mask_logits = made_up_logits(
                model.num_classes, present, (grid[0], grid[1]), presence=presence
            )
            self.made_up = (
                class_logits.expand(1, case.batch, -1, -1).to(self.device),
                mask_logits.expand(1, case.batch, -1, -1, -1).to(self.device),
            )

    @torch.inference_mode()
    def forward(self, images: Tensor) -> SegOutput:
        """Run the network on images (B, 3, H, W)."""
        output: SegOutput = self.model(images, deep=False)
        return output

    @torch.inference_mode()
    def __call__(self) -> tuple[float, ...]:
        """Run one pass and return the seconds of each of PARTS, or of COMPILED_PARTS."""
        with computing_in(self.precision, self.device):
            if self.precision.autocast is not None and not self.whole:
                self.model(_small_images(self.model), deep=False)  # casts the weights, once for all images
            return self._timed()

    def _timed(self) -> tuple[float, ...]:
        """Run one pass in the current precision and return the seconds of each part."""
        stamps = [_stamp(self.device)]
        hooks = []
        if not self.whole:  # a hook inside a compiled model would be compiled too
            hooks.append(self.model.backbone.register_forward_hook(lambda *_: stamps.append(_stamp(self.device))))
        try:
            output = self.forward(self.images)
            stamps.append(_stamp(self.device))
            if self.made_up is not None:
                class_logits, mask_logits = self.made_up
                output = output._replace(class_logits=class_logits, mask_logits=mask_logits, added_logits=())
            label_map(output)
            stamps.append(_stamp(self.device))
        except torch.OutOfMemoryError as error:
            raise UserError(f"{self.case}: out of memory on {self.device}; leave this case out") from error
        finally:
            for hook in hooks:
                hook.remove()
        return _seconds(stamps, self.device)

    def peak_on_cuda(self) -> int:
        """Return the peak memory of a pass in bytes, on top of what the device holds before it."""
        self()  # libraries allocate their own buffers first
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self()
        return torch.cuda.max_memory_allocated(self.device) - before


def made_up_logits(
    num_classes: int, present: int, grid: tuple[int, int], *, presence: bool = False
) -> tuple[Tensor, Tensor]:
    """Return class logits (1, 1, K, K + 1) and mask logits (1, 1, K, h, w) shaped like a trained model's.

    Class logits are N(0, 1), plus 10 on the own class for queries of the classes present, and plus 8 on "no object"
    for all others. Mask logits are N(0, 3^2). With `presence`, class logits (1, 1, K, 1) are those of a presence head:
    the logit of the own class less that of "no object".
    """
    random = torch.Generator().manual_seed(0)
    class_logits = torch.randn(num_classes, num_classes + 1, generator=random)
    found = torch.randperm(num_classes, generator=random)[:present]
    absent = torch.ones(num_classes, dtype=torch.bool)
    absent[found] = False
    class_logits[found, found] += 10
    class_logits[absent, -1] += 8
    if presence:
        class_logits = (class_logits.diagonal() - class_logits[:, -1])[:, None]
    return class_logits[None, None], 3 * torch.randn(1, 1, num_classes, *grid, generator=random)


def _images(model: SegViT, case: Case, image: str | Path | None) -> Tensor:
    """Return images (B, N, H, W) of a photo, or of noise in uint8."""
    if image is None:
        return torch.randint(0, 256, (case.batch, model.bands, *case.size), dtype=torch.uint8)
    photo = resize(image_for(model, Path(image)), case.size)
    return photo.expand(case.batch, -1, -1, -1).contiguous()


def _small_images(model: SegViT) -> Tensor:
    """Return an image (1, N, H, W) of a few patches, to trigger work that happens once."""
    side = 4 * model.backbone.patch_size
    return torch.zeros((1, model.bands, side, side), dtype=torch.uint8, device=model.mean.device)


def _stamp(device: torch.device) -> Any:
    """Return the time now: an event on cuda, seconds elsewhere."""
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _seconds(stamps: Sequence[Any], device: torch.device) -> tuple[float, ...]:
    """Return the seconds from each stamp to the next."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return tuple(before.elapsed_time(after) / 1000 for before, after in pairwise(stamps))
    return tuple(after - before for before, after in pairwise(stamps))


def _facts(model: SegViT) -> dict[str, Any]:
    """Return a description of the model."""
    return {
        **described(model),
        "num_classes": model.num_classes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "compiled": is_compiled(model),
    }


def _machine(device: torch.device) -> dict[str, Any]:
    """Return a description of the machine."""
    threads = torch.get_num_threads() if device.type == "cpu" else None
    precision = torch.get_float32_matmul_precision()
    return {
        "device": device.type,
        "name": device_name(device),
        "threads": threads,
        "torch": torch.__version__,
        "float32_matmul_precision": precision,
    }


def _peak_apart(file: Path, case: Case, *, image: str | Path | None, present: int | None, compiled: bool) -> int:
    """Return the peak memory of a pass on the CPU in bytes, on top of the model, measured in a separate process."""
    request = {
        "file": str(file),
        "case": asdict(case),
        "image": None if image is None else str(image),
        "present": present,
        "compiled": compiled,
        "threads": torch.get_num_threads(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "segvit.profiling.benchmark", json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"{case}: its peak memory could not be measured ({why[0]}); add --no-memory to skip this")
    return int(done.stdout.split()[-1])


def _print_peak(request: dict[str, Any]) -> None:
    """Print the peak memory of a pass; the process of `_peak_apart` runs this."""
    torch.set_num_threads(request["threads"])
    model = load_model(request["file"])
    case = Case(**request["case"] | {"size": tuple(request["case"]["size"])})
    if request["compiled"]:
        compile_model(model)
    run = _Run(model, case, image=request["image"], present=request["present"])
    if request["compiled"]:
        run()  # the compiler takes more memory than the model
    else:
        side = 4 * model.backbone.patch_size
        small = Case(size=(side, side), batch=1, precision=case.precision)
        _Run(model, small, image=None, present=request["present"])()  # libraries allocate their buffers
    print(peak_memory(run))


def peak_memory(run: Callable[[], object]) -> int:
    """Return the peak memory of a run in bytes, on top of what the process holds before it (Linux)."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)  # give back what loading has freed; the run would reuse it unseen
    before = _resident("VmRSS")
    CLEAR_REFS.write_text("5")
    run()
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    """Return a memory figure of this process in bytes: VmRSS (now) or VmHWM (peak)."""
    found = re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    _print_peak(json.loads(sys.argv[1]))
