"""OpenVINO: our ONNX graph at every setting of its shape, and .xml files that segvit writes and runs."""

import ctypes
import gc
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from PIL import Image
from torch import Tensor

import segvit.export.traced as traced_module
from segvit.cli import main as cli
from segvit.config import EvalConfig, Structure
from segvit.data.shapes.scenes import render_scene, write_shapes
from segvit.errors import UserError
from segvit.export.export import export_model
from segvit.export.formats import openvino_ir
from segvit.inference.openvino_model import OpenvinoModel, core, load_openvino
from segvit.inference.protocol import image_labels, image_scores
from segvit.inference.runtimes import RUNTIMES, place_for
from segvit.models.create import create_model
from segvit.models.positions import CUBIC, bicubic_matrix
from segvit.models.segvit import SegViT
from segvit.prediction.outputs import model_digest
from segvit.weights.load import load_network
from segvit.weights.names import EXPORTED, check_model_name
from tests.helpers.exports import differing, tiny
from tests.helpers.tiny import random_images, stir, tell_apart, tiny_config

FAMILIES = ("vit", "dinov2, registers", "beitv2", "eva02", "dinov3")
SIZE = (43, 57)


def shaped(path: Path, size: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    """The graph of an ONNX file under every way to fix all of its shape, a part of it, or nothing."""
    height, width = size
    yield "dynamic", core().read_model(path)
    for name, shape in {
        "fixed": [2, 3, height, width],
        "free batch": [-1, 3, height, width],
        "free height": [2, 3, -1, width],
        "free width": [-1, 3, height, -1],
        "bounds": [openvino.Dimension(1, 4), 3, openvino.Dimension(16, 200), openvino.Dimension(16, 200)],
    }.items():
        graph = core().read_model(path)
        graph.reshape(openvino.PartialShape(shape))
        yield name, graph
    yield "convert_model", openvino.convert_model(path, input=[2, 3, height, width])
    yield "convert_model, part", openvino.convert_model(path, input=[-1, 3, height, -1])


def labels_of(graph: Any, images: Tensor) -> np.ndarray:
    compiled = core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: np.ndarray = compiled({"images": images.numpy()})["labels"]
    return found


@pytest.mark.parametrize("structure", ["plain", "shrunk"])
def test_a_fixed_shape_changes_no_label(models: dict[str, SegViT], files: dict[str, Path], structure: str) -> None:
    images = random_images(2, SIZE)
    expected = models[structure].predict(images)
    for name, graph in shaped(files[structure], SIZE):
        if structure == "plain" or name in ("fixed", "convert_model"):
            assert differing(labels_of(graph, images), expected) <= 0.001, name


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["plain", "shrunk"])
@pytest.mark.parametrize("variant", FAMILIES)
def test_every_family_at_every_shape(variant: str, structure: Structure, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model(config=replace(tiny_config(variant, structure), head_num_layers=1), num_classes=5).eval()
    stir(model)
    tell_apart(model)
    exported = export_model(model, tmp_path / "model.onnx")
    side = model.image_size
    for size in ((side, side), (side, side * 7 // 4), SIZE):
        images = random_images(2, size)
        expected = model.predict(images)
        for name, graph in shaped(exported.path, size):
            assert differing(labels_of(graph, images), expected) <= 0.001, (name, size)
    assert export_model(model, tmp_path / "model.xml").size is None


def test_bicubic_weights_are_those_of_the_formula() -> None:
    """Keys' kernel of the distance, as written in the paper, with abs."""

    def kernel(distance: float) -> float:
        x, a = abs(distance), CUBIC
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    for old, new in ((5, 9), (7, 3), (1, 4), (4, 4)):
        expected = torch.zeros(new, old)
        for row in range(new):
            place = (row + 0.5) * old / new - 0.5
            low = int(np.floor(place))
            for tap in range(low - 1, low + 3):
                expected[row, min(max(tap, 0), old - 1)] += kernel(place - tap)
        torch.testing.assert_close(bicubic_matrix(old, new, torch.device("cpu")), expected, rtol=0, atol=1e-5)


@pytest.fixture
def no_translation(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the slow part of an export: the graph is that of a file."""
    monkeypatch.setattr(traced_module, "trace", lambda graph, *_, **__: graph)
    monkeypatch.setattr(
        traced_module,
        "to_onnx",
        lambda _, graph: onnx.load(
            files["extended" if graph.model.added else graph.model.config.structure],
        ),
    )


@pytest.mark.usefixtures("no_translation")
def test_labels_and_scores_are_pytorchs(models: dict[str, SegViT], tmp_path: Path) -> None:
    image = random_images(1, (70, 45))[0]
    small = random_images(1, (20, 50))[0]  # smaller than a window, so padded with the exact mean
    for name in ("plain", "shrunk", "extended"):
        model = models[name]
        exported = export_model(model, tmp_path / f"{name}.xml")
        assert exported.agreement.differing <= 0.001 and exported.size is None
        assert exported.num_bytes > (tmp_path / f"{name}.xml").stat().st_size
        runtime = load_network(exported.path, device="cpu")
        assert isinstance(runtime, OpenvinoModel)
        assert runtime.export["precision"] == "fp32" and runtime.spec == model.spec
        assert runtime.protocol == model.protocol and runtime.extra["metrics"] == {"miou": 0.5}
        outputs = [output.get_names() for output in runtime._compiled.outputs]
        assert len(outputs) == 2 and not any("labels" in names for names in outputs)
        for config in (EvalConfig(window=32, stride=24), EvalConfig(mode="whole"), model.protocol):
            assert differing(image_labels(runtime, image, config), image_labels(model, image, config)) <= 0.001
            for each in (image, small):
                torch.testing.assert_close(
                    image_scores(runtime, each, config), image_scores(model, each, config), rtol=1e-4, atol=1e-4
                )
    names = [f"{name}.{part}" for name in ("extended", "plain", "shrunk") for part in ("bin", "xml")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    foreign = core().read_model(tmp_path / "plain.xml")  # other programs see one input
    assert [each.get_any_name() for each in foreign.inputs] == ["images"]
    images = random_images(2, SIZE)
    assert differing(labels_of(foreign, images), models["plain"].predict(images)) <= 0.001
    foreign.reshape([2, 3, *SIZE])
    assert differing(labels_of(foreign, images), models["plain"].predict(images)) <= 0.001
    digest = model_digest(load_network(tmp_path / "plain.xml", device="cpu"))
    content = (tmp_path / "plain.bin").read_bytes()
    (tmp_path / "plain.bin").write_bytes(content[:-4] + b"\0\0\1\0")
    assert model_digest(load_network(tmp_path / "plain.xml", device="cpu")) != digest, "the weights count too"


@pytest.mark.usefixtures("no_translation")
def test_other_labels_leave_no_file(tmp_path: Path) -> None:
    other = tiny("plain")
    with torch.no_grad():
        other.head.class_tokens.mul_(1.5)
    with pytest.raises(UserError, match=r"cannot be exported.*% of the pixels differ"):
        export_model(other, tmp_path / "model.xml")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("no_translation")
def test_lower_precisions(models: dict[str, SegViT], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for seed in range(4):
        Image.fromarray(render_scene(seed, 48)[0]).save(tmp_path / f"{seed}.png")
    model = models["plain"]
    with pytest.raises(UserError, match=r"int8: \.xml files are calibrated on images"):
        export_model(model, tmp_path / "int8.xml", precision="int8")
    before = signal_stack()
    exported = export_model(model, tmp_path / "int8.xml", precision="int8", images=sorted(tmp_path.glob("*.png")))
    seen = capfd.readouterr()
    assert not seen.out and not seen.err and signal_stack() == before
    assert exported.calibrated_on == 4 and "int8 (calibrated on 4 images)" in exported.lines()[0]
    graph = core().read_model(exported.path)
    kinds = [node.get_type_name() for node in graph.get_ops()]
    assert kinds.count("FakeQuantize") > 10
    weights = [
        node.get_data()
        for node in graph.get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() == openvino.Type.i8 and node.data.size > 500
    ]
    assert len(weights) > 5
    # Half of the range, so that processors without VNNI do not saturate.
    assert max(int(np.abs(values.astype(int)).max()) for values in weights) <= 64
    # Only products with weights are rounded: an attention in int8 is not computed in one step.
    rounded = [[is_rounded(node, index) for index in (0, 1)] for node in graph.get_ops() if is_product(node)]
    assert rounded.count([True, True]) > 10 and rounded.count([False, False]) > 5 and [False, True] not in rounded
    # Not the labels, which follow every rounding in a random model.
    half = to_half_file(model, tmp_path)
    constants = [node for node in core().read_model(half).get_ops() if node.get_type_name() == "Constant"]
    assert sum(node.get_element_type() == openvino.Type.f16 for node in constants) > 20


def is_product(node: Any) -> bool:
    return bool(node.get_type_name() == "MatMul")


def is_rounded(node: Any, index: int) -> bool:
    """Follow an input through changes of layout and type: activations to FakeQuantize, weights to whole numbers."""
    while True:
        node = node.input_value(index).get_node()
        index = 0
        if node.get_type_name() not in ("Reshape", "Transpose", "Convert", "Multiply", "Subtract"):
            return node.get_type_name() == "FakeQuantize" or node.get_element_type() == openvino.Type.i8


class SignalStack(ctypes.Structure):
    """The stack_t of Linux on 64-bit processors."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> tuple[int, int]:
    """Address and size of this thread's own stack for signals."""
    found = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.address, found.size


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO changes the stack for signals on Linux")
@pytest.mark.usefixtures("no_translation")
def test_models_leave_the_stack_for_signals(models: dict[str, SegViT], tmp_path: Path) -> None:
    """Two models that were deleted in the order of their loading left a freed one, and the next signal was the end."""
    path = export_model(models["plain"], tmp_path / "plain.xml").path
    before = signal_stack()
    first, second = load_openvino(path), load_openvino(path)
    for model in (first, second):
        model.predict(random_images(1, SIZE))
    del model, first
    gc.collect()
    del second
    gc.collect()
    assert signal_stack() == before


def to_half_file(model: SegViT, folder: Path) -> Path:
    """The model with weights in half precision. The limit of 1 % is for trained models, and this one is random."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segvit.export.export.MOST_DIFFERING", {"fp32": 0.001, "fp16": 0.05, "int8": None})
        return export_model(model, folder / "half.xml", precision="fp16").path


@pytest.mark.usefixtures("no_translation")
def test_files_that_are_no_models(models: dict[str, SegViT], tmp_path: Path) -> None:
    good = export_model(models["plain"], tmp_path / "good.xml").path
    check_model_name(good)  # not taken for a web page, which may be XML too
    bad = tmp_path / "bad.xml"
    with pytest.raises(UserError, match=r"no model file .*bad\.xml: give an \.xml file"):
        load_openvino(bad)
    bad.write_bytes(good.read_bytes())
    with pytest.raises(UserError, match=r"bad\.xml: there is no bad\.bin beside it"):
        load_openvino(bad)
    (tmp_path / "bad.bin").write_bytes(good.with_suffix(".bin").read_bytes())
    text = good.read_text()
    for content, told in (
        ("", r"an empty file \(0 bytes\)"),
        ('<?xml version="1.0"?><html></html>', "a web page instead of weights"),
        (text[: len(text) // 2], "not a whole OpenVINO file"),
        (text.replace("<segvit", "<other"), "an OpenVINO file, but not written by segvit"),
        (changed(text, cell="8"), "has cell '8', which no export writes"),
        (changed(text, size=[0, 5]), r"has size '\[0, 5\]'"),
        (changed(text, least=1e300), "has least '1e\\+300'"),
        (changed(text, mean=[float("nan")] * 3), r"has mean '\[nan, nan, nan\]'"),
        (changed(text, precision=None), "has precision 'None'"),
    ):
        bad.write_text(content)
        with pytest.raises(UserError, match=rf"bad\.xml: .*{told}"):
            load_openvino(bad)
    with pytest.raises(UserError, match=r"good\.xml: segvit runs OpenVINO files on a cpu; leave --device cuda out"):
        load_openvino(good, device="cuda")
    with pytest.raises(UserError, match=r"is a folder: give an \.xml file"):
        load_openvino(tmp_path)


def changed(text: str, **values: Any) -> str:
    """The content of an .xml file with other facts of the export in its header."""
    from html import escape, unescape

    start = text.rindex("<segvit value=") + len('<segvit value="')
    end = text.index('"', start)
    header = json.loads(unescape(text[start:end]))
    header["export"] |= values
    return text[:start] + escape(json.dumps(header)) + text[end:]


@pytest.mark.parametrize("package", ["openvino", "nncf", "onnxscript"])
def test_missing_package_says_what_to_install(
    models: dict[str, SegViT], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    Image.fromarray(render_scene(1, 48)[0]).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=rf"{package}.*pip install 'segvit\[openvino\]'"):
        export_model(models["plain"], tmp_path / "a.xml", precision="int8", images=[tmp_path / "a.png"])


def test_a_missing_package_is_reported_before_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("segvit.weights.load.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(SystemExit):
        call(["export", "somebody/model", str(tmp_path / "a.xml")])
    assert "pip install 'segvit[openvino]'" in capsys.readouterr().err


def test_runtimes_are_known_by_their_endings() -> None:
    assert tuple(RUNTIMES) == EXPORTED
    assert place_for("a.xml", "auto") == "cpu" and place_for("a.safetensors", "auto") == "auto"


@pytest.mark.usefixtures("no_translation")
def test_the_command_line_exports_predicts_and_evaluates(
    models: dict[str, SegViT], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models["plain"].save(tmp_path / "plain.safetensors")
    write_shapes(tmp_path / "data", train=1, val=3, size=48)
    data = ["--data.spec", "shapes", "--data.root", str(tmp_path / "data"), "--data.workers", "0"]
    target = str(tmp_path / "model.xml")
    call(["export", str(tmp_path / "plain.safetensors"), target, *data])
    assert "OpenVINO fp32" in capsys.readouterr().out
    scores = []
    for model in (tmp_path / "plain.safetensors", target):
        call(["evaluate", str(model), *data, "--json", str(tmp_path / "scores.json"), "--device", "cpu"])
        scores.append(json.loads((tmp_path / "scores.json").read_text())["miou"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    call(["predict", target, str(tmp_path / "data" / "images" / "val"), "--output", str(tmp_path / "seen")])
    assert len(list((tmp_path / "seen").glob("*.png"))) >= 3


def call(arguments: list[str]) -> None:
    """`segvit` with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segvit", *arguments])
        cli.main()


def test_nncf_is_imported_without_its_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNCF_CI", raising=False)
    seen: list[str | None] = []
    monkeypatch.setattr(openvino_ir, "need", lambda *_, **__: seen.append(os.environ.get("NNCF_CI")))
    openvino_ir.nncf()
    assert seen == ["1"] and "NNCF_CI" not in os.environ
