"""Compile a model with torch.compile, in place: the object and the names of its weights stay.

    compile_model(model)
    segvit.predict(model, "photo.jpg")          # the first image waits for the compiler

Height, width and batch size are variables of the graph. So two graphs serve all sizes: one for single images, and one
for batches.
"""

import os
import shutil
import sys
from typing import Any

import torch
from torch import Tensor, nn

from segvit.errors import UserError
from segvit.inference.exported import ExportedModel
from segvit.inference.network import Network


def compile_model(model: Network) -> None:
    """Let PyTorch compile the forward pass of a model at its next call.

    Raises:
        UserError: an exported model, or no C++ compiler for a model on a CPU.
    """
    if isinstance(model, ExportedModel):
        raise UserError(f"{model.path}: {model.runtime_name} has compiled this model already; leave --compile out")
    assert isinstance(model, nn.Module)
    _check_compiler(model.mean.device)
    from torch._dynamo import maybe_mark_dynamic  # a second of import time that only compiling needs

    model.compile(dynamic=True)
    compiled = model._compiled_call_impl
    assert compiled is not None

    def call(images: Tensor, *args: Any, **kwargs: Any) -> Any:
        # Without this, a square first image would make height and width one variable, and the graph for squares only.
        maybe_mark_dynamic(images, [2, 3])
        return compiled(images, *args, **kwargs)

    model._compiled_call_impl = call


def is_compiled(model: Any) -> bool:
    """True if a model is compiled: by `compile_model`, `model.compile()` or `torch.compile(model)`."""
    return getattr(model, "_compiled_call_impl", None) is not None or uncompiled(model) is not model


def uncompiled(model: Any) -> Any:
    """Return the module that `torch.compile(model)` wraps, or the model itself if it is not wrapped."""
    return getattr(model, "_orig_mod", model)


def _check_compiler(device: torch.device) -> None:
    """Refuse a device without a compiler, which would fail deep inside the first forward pass."""
    if device.type == "cpu":
        compiler = os.environ.get("CXX", "cl" if os.name == "nt" else "clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise UserError(
                f"--compile needs a C++ compiler on a cpu, and {compiler!r} is not installed: install it, set the "
                "environment variable CXX to another, or leave --compile out"
            )
