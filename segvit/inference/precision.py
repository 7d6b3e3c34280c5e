"""The precision of inference: the one asked for, or the one that the processor is fast at.

    with computing_in(resolve_precision(model, "auto"), model.mean.device):
        labels = image_labels(model, image)

The weights keep their precision. Autocast casts a weight when it is first needed and keeps the cast until its outermost
block ends. So put one block around a run over windows and images, not one around each.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from segvit.config import PrecisionChoice, PrecisionName
from segvit.errors import UserError
from segvit.inference.exported import ExportedModel
from segvit.inference.network import Network

HALVES: dict[PrecisionName, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Half precisions: types of the products under autocast. Norms, softmax, masks and scores stay in float32."""
TENSOR_CORES = (7, 0)
"""Compute capability from which an NVIDIA GPU multiplies fp16 faster than fp32."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """A precision to compute in, and the reason for it."""

    name: str
    """fp32, bf16 or fp16, or int8 for an exported model."""
    autocast: torch.dtype | None = None
    """Type of the products under autocast, or None if it is off."""
    note: str | None = None
    """Reason for the precision, or a warning; None if there is neither."""

    def __str__(self) -> str:
        return self.name if self.note is None else f"{self.name} ({self.note})"


def resolve_precision(model: Network, wanted: PrecisionChoice | None = None) -> Precision:
    """Choose the precision of a model on its device.

    Args:
        model: a SegViT, or an exported model.
        wanted: a precision, or auto for the one that the device is fast at. Default: fp32, or for an exported model
            the precision of its file.

    Raises:
        UserError: a precision that the device lacks, or another than that of an exported model.
    """
    if isinstance(model, ExportedModel):
        own = str(model.export["precision"])
        if wanted not in (None, "auto", own):
            raise UserError(
                f"precision {wanted}: {model.path} was exported in {own}; leave --precision out, or give the model "
                "that it was exported from"
            )
        return Precision(name=own, note="as exported")
    device = model.mean.device
    if wanted == "auto":
        name, reason = fastest_precision(device)
        return Precision(name=name, autocast=HALVES.get(name), note=f"auto: {reason}")
    name = wanted or "fp32"
    check_precision(name, device)
    emulated = name == "bf16" and device.type == "cpu" and _bf16_products() is None
    return Precision(name=name, autocast=HALVES.get(name), note="emulated by this cpu, and slow" if emulated else None)


def check_precision(precision: PrecisionName, device: torch.device) -> None:
    """Refuse a precision that a device lacks.

    Raises:
        UserError: fp16 on a CPU, or bf16 on a GPU without it.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision fp16: not offered on a cpu, where it is slow; use bf16 or fp32")
    if precision == "bf16" and device.type == "cuda" and not _cuda_has_bf16(device):
        raise UserError(f"precision bf16: {torch.cuda.get_device_name(device)} lacks it; use fp16 or fp32")


def fastest_precision(device: torch.device) -> tuple[PrecisionName, str]:
    """Return the precision that a device is fast at, and the reason."""
    if device.type == "cpu":
        if (unit := _bf16_products()) is not None:
            return "bf16", f"this cpu multiplies it by {unit}"
        return "fp32", "this cpu would emulate bf16"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if _cuda_has_bf16(device):
            return "bf16", f"{name} multiplies bf16"
        if torch.cuda.get_device_capability(device) >= TENSOR_CORES:
            return "fp16", f"{name} lacks bf16"
        return "fp32", f"{name} is no faster in half precision"
    return "fp32", f"half precision is unmeasured on {device.type}"


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute in a precision inside the block, whatever autocast is set around it."""
    with torch.autocast(device.type, dtype=precision.autocast, enabled=precision.autocast is not None):
        yield


def _bf16_products() -> str | None:
    """Return the unit of this processor that multiplies bf16, or None if PyTorch emulates it in float32."""
    if not torch.backends.mkldnn.is_available():
        return None
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    if torch.cpu._is_avx512_bf16_supported():
        return "AVX512-BF16"
    arm = platform.machine().lower() in ("aarch64", "arm64")
    if arm and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # on x86 it is also true if AVX512 emulates bf16
        return "the BF16 extension"
    return None


def _cuda_has_bf16(device: torch.device) -> bool:
    """True if a GPU multiplies bf16 without emulation."""
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
