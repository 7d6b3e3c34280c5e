"""A model compiled by PyTorch (torch.compile), in place: the same object, the same names of its weights.

    compile_model(model)
    segvit.predict(model, "photo.jpg")          # the first image waits for the compiler

Height, width and batch are variables of the graph, so that any number of sizes takes at most two: one for single
images, and one for batches.
"""

import os
import shutil
import sys
from typing import Any

import torch
from torch import Tensor, nn

from segvit.errors import UserError
from segvit.inference.network import Network
from segvit.inference.onnx_model import OnnxModel


def compile_model(model: Network) -> None:
    """Let PyTorch compile the forward of a model at its next call.

    Raises:
        UserError: an exported model, or no compiler for the device that it is on.
    """
    if isinstance(model, OnnxModel):
        raise UserError(f"{model.path} is compiled already, by ONNX Runtime: leave --compile out")
    assert isinstance(model, nn.Module)
    _check_compiler(model.mean.device)
    from torch._dynamo import maybe_mark_dynamic  # here, for it takes a second that only compiling needs

    model.compile(dynamic=True)
    compiled = model._compiled_call_impl
    assert compiled is not None

    def call(images: Tensor, *args: Any, **kwargs: Any) -> Any:
        # Else height and width that are equal in the first images are one variable, and the graph is for squares alone.
        maybe_mark_dynamic(images, [2, 3])
        return compiled(images, *args, **kwargs)

    model._compiled_call_impl = call


def is_compiled(model: Any) -> bool:
    """Whether PyTorch compiles a model, by `compile_model`, by `model.compile()` or by `torch.compile(model)`."""
    return getattr(model, "_compiled_call_impl", None) is not None or uncompiled(model) is not model


def uncompiled(model: Any) -> Any:
    """The module inside what `torch.compile(model)` gives; any other as it comes."""
    return getattr(model, "_orig_mod", model)


def _check_compiler(device: torch.device) -> None:
    """Refuse what would fail in the depth of the first forward."""
    if device.type == "cpu":
        compiler = os.environ.get("CXX", "cl" if os.name == "nt" else "clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise UserError(
                f"compiling for a cpu needs a C++ compiler, and there is no {compiler!r}: install one, name another by "
                "the environment's CXX, or leave --compile out"
            )
