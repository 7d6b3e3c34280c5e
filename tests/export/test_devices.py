"""Formats of phones and boards: files with their header and PyTorch's labels, or an error that says what to install."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import segvit.export.formats.coreml as coreml
import segvit.export.graph as graph_module
import segvit.export.lowering as lowering
import segvit.export.traced as traced_module
from segvit.errors import UserError
from segvit.export.export import export_model
from segvit.export.formats.table import FORMATS
from segvit.export.graph import LabelGraph
from segvit.export.named import NamedOutputs
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from tests.helpers.tiny import random_images, stir, tell_apart, tiny_config

FILES = {"executorch": "model.pte", "litert": "model.tflite", "coreml": "model.mlpackage"}


def tiny(structure: Any = "plain") -> SegViT:
    torch.manual_seed(0)
    model = create_model(config=tiny_config("vit", structure), num_classes=5).eval()
    stir(model)
    tell_apart(model)
    return model


@pytest.fixture
def model() -> SegViT:
    return tiny()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_missing_package_says_what_to_install(
    model: SegViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    form = FORMATS[name]
    for package in form.packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{form.packages[0]}.*pip install 'segvit\[{name}\]'"):
        export_model(model, tmp_path / FILES[name])
    assert not names(tmp_path)


@pytest.fixture
def traced(model: SegViT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the slow part of an export: the model itself is the traced program."""

    def trace(graph: LabelGraph, size: tuple[int, int], **_: Any) -> Any:
        images = torch.zeros(1, 3, *size, dtype=torch.uint8)
        return SimpleNamespace(module=lambda: graph, example_inputs=((images,), {}))

    for module in (traced_module, graph_module):
        monkeypatch.setattr(module, "trace", trace)
    monkeypatch.setattr(lowering, "lower", lambda program: program)


def put(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """Stand-ins for packages, with `__` for the dots of a name."""
    for name, content in modules.items():
        dotted = name.replace("__", ".")
        for parent in [dotted.rsplit(".", count)[0] for count in range(dotted.count(".") + 1)]:
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or SimpleNamespace())
        monkeypatch.setitem(sys.modules, dotted, SimpleNamespace(**content))


def executorch_of(graph: LabelGraph, monkeypatch: pytest.MonkeyPatch, *, shift: int = 0) -> None:
    """An ExecuTorch that computes in PyTorch; `shift` is added to each label."""

    def lower(program: Any, partitioner: list[str]) -> Any:
        assert partitioner == ["xnnpack"]
        return SimpleNamespace(to_executorch=lambda: SimpleNamespace(buffer=b"a program"))

    def execute(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        (images,) = inputs
        assert images.dtype == torch.uint8 and len(images) == 1
        labels, *logits = graph(images)
        return (labels + shift, *logits)

    method = SimpleNamespace(execute=execute)
    program = SimpleNamespace(load_method=lambda name: {"forward": method}[name])
    runtime = SimpleNamespace(get=lambda: SimpleNamespace(load_program=lambda path: path.read_bytes() and program))
    put(
        monkeypatch,
        executorch={},
        executorch__exir={"to_edge_transform_and_lower": lower},
        executorch__backends__xnnpack__partition__xnnpack_partitioner={"XnnpackPartitioner": lambda: "xnnpack"},
        executorch__runtime={"Runtime": runtime},
    )


def test_executorch_has_its_header_beside(
    model: SegViT, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executorch_of(LabelGraph(model, with_scores=False), monkeypatch)
    exported = export_model(model, tmp_path / "model.pte")
    assert names(tmp_path) == ["model.pte", "model.pte.json"]
    assert (tmp_path / "model.pte").read_bytes() == b"a program"
    header = json.loads((tmp_path / "model.pte.json").read_text())
    assert header["export"]["format"] == "executorch" and header["export"]["size"] == [64, 64]
    assert header["num_classes"] == 5 and header["export"]["differing"] == 0
    assert "one image at a time, 64 x 64 pixels only" in exported.lines()[0]
    assert exported.note == ".pte files take images of one size"
    executorch_of(LabelGraph(model, with_scores=False), monkeypatch, shift=1)
    with pytest.raises(UserError, match=r"100\.000 % of the pixels differ"):
        export_model(model, tmp_path / "model.pte", size=(40, 70))
    assert json.loads((tmp_path / "model.pte.json").read_text()) == header  # the older file is kept


def test_litert_quantizes_what_it_compared(
    model: SegViT, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, seen = LabelGraph(model, with_scores=False), []

    def convert(module: NamedOutputs, sample_kwargs: dict[str, Tensor]) -> Any:
        assert list(module(**sample_kwargs)) == ["labels", "class_logits", "mask_logits"]
        seen.append("converted")
        return SimpleNamespace(export=lambda path: Path(path).write_text("fp32"))

    class Quantizer:
        def __init__(self, path: str, recipe: str) -> None:
            assert Path(path).read_text() == "fp32" and recipe == "a recipe"

        def quantize(self) -> Any:
            return SimpleNamespace(export_model=lambda path: Path(path).write_text("int8"))

    class Recipe:
        def add_dynamic_config(self, **settings: Any) -> None:
            assert settings == {"regex": ".*", "operation_name": "products", "num_bits": 8}

        def get_quantization_recipe(self) -> str:
            return "a recipe"

    def runner(images: Any) -> dict[str, Any]:
        return {"labels": graph(torch.from_numpy(images))[0].int().numpy()}

    def interpreter(path: str) -> Any:
        seen.append(Path(path).read_text())
        return SimpleNamespace(get_signature_runner=lambda: runner)

    put(
        monkeypatch,
        litert_torch={"convert": convert},
        ai_edge_litert__interpreter={"Interpreter": interpreter},
        ai_edge_quantizer__quantizer={"Quantizer": Quantizer},
        ai_edge_quantizer__qtyping={"TFLOperationName": SimpleNamespace(FULLY_CONNECTED="products")},
        ai_edge_quantizer__recipe_manager={"RecipeManager": Recipe},
    )
    photo = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "red").save(photo)
    exported = export_model(model, tmp_path / "model.tflite", precision="int8", size=(64, 64), images=[photo])
    assert seen == ["converted", "fp32", "int8"]
    assert (tmp_path / "model.tflite").read_text() == "int8"
    assert "int8 (dynamic)" in exported.lines()[0] and exported.note is None
    assert exported.calibrated_on == 0, "the photo is compared, but gives no ranges"


def test_core_ml_is_not_compared(model: SegViT, traced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        def __init__(self, path: str | None = None, skip_model_load: bool = True) -> None:
            self.path = path
            self.user_defined_metadata: dict[str, str] = {}

        def save(self, path: str) -> None:
            assert path != self.path  # the real one would delete it first
            Path(path).mkdir()
            for name in ("Manifest.json", "executorch_debug_handle_mapping.json"):
                (Path(path) / name).write_text(json.dumps(self.user_defined_metadata))

    def convert(program: Any, inputs: Any, outputs: Any, **settings: Any) -> Package:
        assert inputs == [("image", "images", (1, 3, 40, 70), 1 / 255, "RGB")]
        floats = np.float32
        assert outputs == [("labels", np.int32), ("class_logits", floats), ("mask_logits", floats)]
        assert settings == {"minimum_deployment_target": 17, "compute_precision": 16, "skip_model_load": True}
        return Package()

    put(
        monkeypatch,
        coremltools={
            "convert": convert,
            "target": SimpleNamespace(iOS17=17),
            "precision": SimpleNamespace(FLOAT16=16, FLOAT32=32),
            "colorlayout": SimpleNamespace(RGB="RGB"),
            "ImageType": lambda name, *, shape, scale, color_layout: ("image", name, shape, scale, color_layout),
            "TensorType": lambda name, *, dtype: (name, dtype),
            "models": SimpleNamespace(MLModel=Package),
        },
    )
    exported = export_model(model, tmp_path / "model.mlpackage", precision="fp16", size=(40, 70))
    assert names(tmp_path / "model.mlpackage") == ["Manifest.json"]
    header = json.loads(json.loads((tmp_path / "model.mlpackage" / "Manifest.json").read_text())["segvit"])
    assert header["export"]["differing"] is None and header["export"]["precision"] == "fp16"
    assert exported.agreement is None
    assert exported.lines()[1] == f"not compared with PyTorch: {coreml.CoreML.unchecked}"


def needs(name: str) -> None:
    """Skip where a package of a format is not installed."""
    lacking = [package for package in FORMATS[name].packages if find_spec(package) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not installed: pip install 'segvit[{name}]'")


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["plain", "shrunk"])
@pytest.mark.parametrize("name", ["executorch", "litert"])
def test_real_files_have_pytorchs_labels(tmp_path: Path, name: str, structure: str) -> None:
    needs(name)
    model = tiny(structure)
    exported = export_model(model, tmp_path / FILES[name], size=(50, 113))
    assert exported.agreement is not None and exported.agreement.differing <= 0.001
    run = FORMATS[name].run(exported.path)
    for images in random_images(3, (50, 113)):
        labels = run(images[None])
        assert labels.dtype == torch.int64
        assert len(labels.unique()) > 2
        assert (labels != model.predict(images[None])).double().mean() <= 0.001


@pytest.mark.slow
def test_real_int8_of_litert(model: SegViT, tmp_path: Path) -> None:
    needs("litert")
    exported = export_model(model, tmp_path / "model.tflite", precision="int8")
    assert exported.agreement is not None and exported.agreement.differing <= 0.2
    assert exported.num_bytes < 0.6 * sum(parameter.numel() * 4 for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_real_core_ml_package(model: SegViT, tmp_path: Path, precision: Any) -> None:
    needs("coreml")
    import coremltools

    export_model(model, tmp_path / "model.mlpackage", precision=precision, size=(50, 113))
    package = coremltools.models.MLModel(str(tmp_path / "model.mlpackage"), skip_model_load=True)
    assert json.loads(package.user_defined_metadata["segvit"])["export"]["size"] == [50, 113]
    description = package.get_spec().description
    (images,) = description.input
    assert (images.name, images.type.imageType.height, images.type.imageType.width) == ("images", 50, 113)
    assert [output.name for output in description.output] == ["labels", "class_logits", "mask_logits"]
    assert list(description.output[0].type.multiArrayType.shape) == [1, 50, 113]
