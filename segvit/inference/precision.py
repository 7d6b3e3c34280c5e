"""In which precision a model computes when it labels images: what was asked for, or what the processor is fast at.

    with computing_in(resolve_precision(model, "auto"), model.mean.device):
        labels = image_labels(model, image)

Weights stay as they are. Autocast casts each of them when it is first needed and keeps that until its outermost block
is left: one block belongs around a run over windows and images, not around each.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from segvit.config import PrecisionChoice, PrecisionName
from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.inference.onnx_model import OnnxModel

HALVES: dict[PrecisionName, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast computes products in; norms, softmax, masks and scores stay in float32."""
TENSOR_CORES = (7, 0)
"""Compute capability from which an NVIDIA GPU multiplies fp16 faster than fp32."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What is computed in, and why."""

    name: str
    """fp32, bf16 or fp16; of an exported model int8 too."""
    autocast: torch.dtype | None = None
    """What autocast computes products in; None: it is off."""
    note: str | None = None
    """What else to know about it; None: it is the default or what was asked for."""

    def __str__(self) -> str:
        return self.name if self.note is None else f"{self.name} ({self.note})"


def resolve_precision(model: Network, wanted: PrecisionChoice | None = None) -> Precision:
    """What a model computes in on the device where it is.

    Args:
        model: a SegViT, or an exported one.
        wanted: auto takes what that device is fast at. Default: fp32; an exported model computes as it was exported.

    Raises:
        UserError: the device does not compute in it, or the exported model computes in another.
    """
    if isinstance(model, OnnxModel):
        own = str(model.export["precision"])
        if wanted not in (None, "auto", own):
            raise UserError(
                f"precision {wanted}: {model.path} computes in {own}, as it was exported; leave --precision out, or "
                "give the model that it was exported from"
            )
        return Precision(name=own, note="as exported")
    device = model.mean.device
    if wanted == "auto":
        name, reason = _fastest(device)
        return Precision(name=name, autocast=HALVES.get(name), note=f"auto: {reason}")
    name = wanted or "fp32"
    check_precision(name, device)
    emulated = name == "bf16" and device.type == "cpu" and _bf16_products() is None
    return Precision(name=name, autocast=HALVES.get(name), note="emulated by this cpu, and slow" if emulated else None)


def check_precision(precision: PrecisionName, device: torch.device) -> None:
    """Refuse a precision that a device does not compute in.

    Raises:
        UserError: it does not.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision fp16 is slow on a cpu and not offered there: take bf16 or fp32")
    if precision == "bf16" and device.type == "cuda" and not _cuda_has_bf16(device):
        raise UserError(f"precision bf16: {torch.cuda.get_device_name(device)} lacks it; take fp16 or fp32")


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute in a precision inside the block, whatever was set around it."""
    with torch.autocast(device.type, dtype=precision.autocast, enabled=precision.autocast is not None):
        yield


def _fastest(device: torch.device) -> tuple[PrecisionName, str]:
    """The precision that a device is fast at, and what says so."""
    if device.type == "cpu":
        if (unit := _bf16_products()) is not None:
            return "bf16", f"this cpu multiplies it by {unit}"
        return "fp32", "this cpu would emulate bf16"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if _cuda_has_bf16(device):
            return "bf16", f"{name} has it"
        if torch.cuda.get_device_capability(device) >= TENSOR_CORES:
            return "fp16", f"{name} lacks bf16"
        return "fp32", f"{name} is no faster in less"
    return "fp32", f"less is unmeasured on {device.type}"


def _bf16_products() -> str | None:
    """What PyTorch multiplies bf16 with on this processor; None: with float32."""
    if not torch.backends.mkldnn.is_available():
        return None
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    if torch.cpu._is_avx512_bf16_supported():
        return "AVX512-BF16"
    arm = platform.machine().lower() in ("aarch64", "arm64")
    if arm and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # on x86 it is true of AVX512 that emulates
        return "the BF16 extension"
    return None


def _cuda_has_bf16(device: torch.device) -> bool:
    """Whether a GPU multiplies bf16 itself."""
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
