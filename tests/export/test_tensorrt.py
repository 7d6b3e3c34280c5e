"""The folder for TensorRT and Triton: names, types and sizes of the ONNX file, and a script that builds what fits."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

import segvit.export.traced as traced_module
from segvit.errors import UserError
from segvit.export.export import export_model
from segvit.export.formats.onnx_graph import OnnxGraph
from segvit.export.formats.tensorrt import build_script, triton_config
from segvit.export.graph import LabelGraph
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from tests.helpers.tiny import random_images, stir, tell_apart, tiny_config

NAMES = ["labels", "class_logits", "mask_logits"]


def graph(sides: tuple[Any, Any] = ("height", "width"), grid: tuple[Any, Any] = ("rows", "columns")) -> Any:
    """A graph with the inputs and outputs of a model of 5 classes, which computes nothing."""
    return helper.make_graph(
        [],
        "model",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, *sides])],
        [
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["batch", *sides]),
            helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, ["batch", 5, 6]),
            helper.make_tensor_value_info("mask_logits", TensorProto.FLOAT, ["batch", 5, *grid]),
        ],
    )


@pytest.fixture
def model() -> SegViT:
    torch.manual_seed(0)
    model = create_model(config=tiny_config("vit"), num_classes=5).eval()
    stir(model)
    tell_apart(model)
    return model


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, model: SegViT) -> None:
    """Skip the slow part of an export: a graph that computes nothing comes out, and PyTorch answers for it."""

    def to_onnx(*_: Any) -> Any:
        return helper.make_model(graph(), opset_imports=[helper.make_opsetid("", 18)])

    def run(*_: Any) -> Callable[[Tensor], Tensor]:
        return lambda images: LabelGraph(model, with_scores=False)(images)[0]

    monkeypatch.setattr(traced_module, "trace", lambda *_, **__: None)
    monkeypatch.setattr(traced_module, "to_onnx", to_onnx)
    monkeypatch.setattr(OnnxGraph, "run", run)


def parse(text: str) -> dict[str, Any]:
    """Read the little of protobuf's text format that our configuration uses."""
    tokens = re.findall(r'"[^"]*"|[\w.-]+|[][{}:,]', text)

    def value() -> Any:
        token = tokens.pop(0)
        if token == "{":
            return message("}")
        if token == "[":
            found = []
            while tokens[0] != "]":
                found.append(value())
                if tokens[0] == ",":
                    tokens.pop(0)
            tokens.pop(0)
            return found
        return token.strip('"') if token.startswith('"') else int(token) if re.fullmatch(r"-?\d+", token) else token

    def message(end: str | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while tokens and tokens[0] != end:
            key = tokens.pop(0)
            if tokens[0] == ":":
                tokens.pop(0)
            else:
                assert tokens[0] in "{["  # only messages and lists of them go without a colon
            assert key not in found
            found[key] = value()
        if end:
            tokens.pop(0)
        return found

    return message(None)


def test_configuration_of_any_size() -> None:
    assert parse(triton_config(graph())) == {
        "name": "segvit",
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "max_batch_size": 4,
        "input": [{"name": "images", "data_type": "TYPE_UINT8", "dims": [3, -1, -1]}],
        "output": [
            {"name": "labels", "data_type": "TYPE_INT64", "dims": [-1, -1]},
            {"name": "class_logits", "data_type": "TYPE_FP32", "dims": [5, 6]},
            {"name": "mask_logits", "data_type": "TYPE_FP32", "dims": [5, -1, -1]},
        ],
        "dynamic_batching": {},
    }


def test_configuration_of_one_size() -> None:
    found = parse(triton_config(graph((32, 48), (4, 6))))
    assert found["input"][0]["dims"] == [3, 32, 48]
    assert [tensor["dims"] for tensor in found["output"]] == [[32, 48], [5, 6], [5, 4, 6]]


def command(script: str) -> list[str]:
    """The words of the call of trtexec."""
    (line,) = re.findall(r"^trtexec (?:.*\\\n)*.*$", script, flags=re.MULTILINE)
    return shlex.split(line.replace("\\\n", " "))


def test_command_that_builds_the_engine() -> None:
    assert command(build_script("images", ((1, 3, 16, 17), (1, 3, 32, 33), (4, 3, 64, 65)))) == [
        "trtexec",
        "--onnx=models/segvit/1/model.onnx",
        "--saveEngine=models/segvit/1/model.plan",
        "--stronglyTyped",
        "--minShapes=images:1x3x16x17",
        "--optShapes=images:1x3x32x33",
        "--maxShapes=images:4x3x64x65",
        "$@",
    ]


@pytest.mark.parametrize(
    ("size", "sides"),
    [(None, ["1x3x32x32", "1x3x64x64", "4x3x128x128"]), ((40, 70), ["1x3x40x70"] * 2 + ["4x3x40x70"])],
)
def test_script_runs_and_triton_serves_the_engine(
    model: SegViT, stand_in: None, tmp_path: Path, size: tuple[int, int] | None, sides: list[str]
) -> None:
    folder = tmp_path / "my folder"
    for _ in range(2):  # the second replaces the first, with its engine
        exported = export_model(model, folder, format="tensorrt", size=size)
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert found == ["build_engine.sh", "models/segvit/1/model.onnx", "models/segvit/config.pbtxt"]
    assert exported.num_bytes == sum((folder / name).stat().st_size for name in found)
    assert "segvit" in [entry.key for entry in onnx.load(folder / found[1]).metadata_props]
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "trtexec").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > asked\n: > models/segvit/1/model.plan\n')
    (tools / "trtexec").chmod(0o755)
    before = parse((folder / "models/segvit/config.pbtxt").read_text())
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run([folder / "build_engine.sh", "--noTF32"], check=True, cwd=tmp_path, env=environment)
    asked = (folder / "asked").read_text().splitlines()
    assert [word.partition("images:")[2] for word in asked if "Shapes" in word] == sides
    assert asked[-1] == "--noTF32"
    after = parse((folder / "models/segvit/config.pbtxt").read_text())
    assert after == before | {"backend": "tensorrt", "default_model_filename": "model.plan"}


def test_int8_needs_images(model: SegViT, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"int8: tensorrt exports are calibrated on images.*--images"):
        export_model(model, tmp_path / "folder", format="tensorrt", precision="int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_configuration_is_that_of_the_file(model: SegViT, tmp_path: Path) -> None:
    exported = export_model(model, tmp_path / "folder", format="tensorrt", scores=True)
    assert exported.agreement is not None and exported.agreement.differing <= 0.001
    config = parse((exported.path / "models/segvit/config.pbtxt").read_text())
    session = onnxruntime.InferenceSession(str(exported.path / "models/segvit/1/model.onnx"))
    types = {"tensor(uint8)": "TYPE_UINT8", "tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}
    for told, tensors in ((config["input"], session.get_inputs()), (config["output"], session.get_outputs())):
        assert [(entry["name"], entry["data_type"]) for entry in told] == [(t.name, types[t.type]) for t in tensors]
    assert [entry["name"] for entry in config["output"]] == [*NAMES, "scores"]
    for size in ((64, 64), (33, 51)):
        images = random_images(config["max_batch_size"], size)
        for entry, found in zip(config["output"], session.run(None, {"images": images.numpy()}), strict=True):
            assert len(found) == len(images) and len(entry["dims"]) == found.ndim - 1
            assert all(dim in (-1, side) for dim, side in zip(entry["dims"], found.shape[1:], strict=True))
            assert found.dtype == {"TYPE_INT64": np.int64, "TYPE_FP32": np.float32}[entry["data_type"]]
