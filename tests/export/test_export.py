"""Exported models: PyTorch's labels at any size and batch, in the same inference code, or an error and no file."""

import json
import re
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor

import segvit
import segvit.export.export as export_module
import segvit.export.traced as traced_module
from segvit.cli import main as cli
from segvit.config import DataConfig, EvalConfig, Structure, Upsampling
from segvit.data.dataset import open_dataset
from segvit.data.shapes.scenes import render_scene, write_shapes
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.export.export import MOST_PHOTOS, export_onnx, export_program
from segvit.export.graph import LabelGraph, NotExportable
from segvit.export.onnx_file import IR_VERSION, set_metadata
from segvit.export.quantize import calibration_windows, to_half, to_int8
from segvit.inference.onnx_model import OnnxModel, load_onnx, with_valid
from segvit.inference.protocol import image_labels, image_scores
from segvit.models.create import create_model
from segvit.models.positions import _resize_by_matrices, resize_tokens
from segvit.models.scores import joint_class_logits
from segvit.models.segvit import SegViT
from segvit.weights.load import load_model
from segvit.weights.model_file import HEADER_KEY, read_header
from tests.helpers.exact_int8 import exact_session
from tests.helpers.exports import PROTOCOL, TINY, differing, tiny
from tests.helpers.one_file import one_file
from tests.helpers.tiny import VARIANTS, random_images, stir, tell_apart, tiny_config

ROOT = Path(__file__).resolve().parents[2]
SIZES = ((32, 32), (64, 40), (33, 51))

# fmt: off
TENSORRT = {
    "Abs", "Add", "And", "ArgMax", "Cast", "Clip", "Concat", "Constant", "Conv", "Cos", "Div", "Equal", "Erf", "Exp",
    "Expand", "Flatten", "Floor", "Gather", "GatherND", "Gemm", "Greater", "GreaterOrEqual", "Identity",
    "LayerNormalization", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Pad", "Pow", "Range",
    "Reciprocal", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape",
    "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze",
    "Where",
}
# fmt: on
"""Of the operators that the ONNX parser of TensorRT 10 takes for these types, those that could come up."""


def run(path: Path, images: Tensor, *names: str) -> list[np.ndarray]:
    """Outputs of a file in bare ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(list(names), {"images": images.numpy()})
    return found


@pytest.mark.parametrize("name", ["plain", "shrunk", "presence", "extended"])
@pytest.mark.parametrize("batch", [1, 3])
def test_labels_at_any_size(models: dict[str, SegViT], files: dict[str, Path], name: str, batch: int) -> None:
    for size in SIZES:
        images = random_images(batch, size)
        labels, class_logits, mask_logits = run(files[name], images, "labels", "class_logits", "mask_logits")
        assert differing(labels, models[name].predict(images)) <= 0.001
        with torch.no_grad():
            output = models[name](images, deep=False)
        expected = joint_class_logits(output)[-1]
        torch.testing.assert_close(torch.from_numpy(class_logits), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.from_numpy(mask_logits), output.mask_logits[-1], rtol=1e-4, atol=1e-4)


def test_scores_where_asked_for(models: dict[str, SegViT], files: dict[str, Path]) -> None:
    images = random_images(2, (33, 51))
    for name in ("plain", "presence", "extended"):
        (found,) = run(files[name], images, "scores")
        torch.testing.assert_close(torch.from_numpy(found), models[name].scores(images), rtol=1e-4, atol=1e-5)
    assert "scores" not in [output.name for output in onnx.load(files["shrunk"]).graph.output]


def test_graph_is_complete_and_portable(files: dict[str, Path]) -> None:
    for path in files.values():
        graph = onnx.load(path)
        onnx.checker.check_model(graph, full_check=True)
        assert [(item.domain, item.version) for item in graph.opset_import] == [("", 18)]
        used = Counter(node.op_type for node in graph.graph.node)
        assert not used.keys() - TENSORRT
        assert all(
            attribute.s in (b"linear", b"nearest")
            for node in graph.graph.node
            if node.op_type == "Resize"
            for attribute in node.attribute
            if attribute.name == "mode"
        )
        (images,) = graph.graph.input
        assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        sizes = [size.dim_param or size.dim_value for size in images.type.tensor_type.shape.dim]
        assert (images.name, sizes) == ("images", ["batch", 3, "height", "width"])
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert str(ROOT).encode() not in content


def test_header_travels_along(models: dict[str, SegViT], files: dict[str, Path]) -> None:
    session = onnxruntime.InferenceSession(str(files["shrunk"]), providers=["CPUExecutionProvider"])
    header = json.loads(session.get_modelmeta().custom_metadata_map[HEADER_KEY])
    assert [item["name"] for item in header["spec"]["classes"]][:2] == ["sky", "water"]
    assert header["spec"]["classes"][0]["color"] == list(load_spec("shapes").palette[0])
    assert header["model"]["image_size"] == 32
    assert header["protocol"]["stride"] == 24
    assert header["metrics"] == {"miou": 0.5}
    assert header["export"]["mean"] == pytest.approx(models["shrunk"].mean.tolist())
    assert header["export"]["std"] == pytest.approx(models["shrunk"].std.tolist())
    assert header["export"]["size"] is None


@pytest.mark.parametrize("config", [PROTOCOL, replace(PROTOCOL, mode="whole"), EvalConfig(window=24, stride=20)])
def test_same_inference_code(models: dict[str, SegViT], files: dict[str, Path], config: EvalConfig) -> None:
    image = random_images(1, (70, 45))[0]
    for name, model in models.items():
        runtime = load_onnx(files[name])
        assert differing(image_labels(runtime, image, config), image_labels(model, image, config)) <= 0.001
        torch.testing.assert_close(
            image_scores(runtime, image, config), image_scores(model, image, config), rtol=1e-4, atol=1e-4
        )
        assert runtime.protocol == model.protocol
        assert runtime.spec == model.spec


def test_windows_of_an_exported_model_are_blended(models: dict[str, SegViT], files: dict[str, Path]) -> None:
    image, runtime = random_images(1, (70, 45))[0], load_onnx(files["plain"])
    config = EvalConfig(window=32, stride=20, blend="gaussian")
    ours, reference = (image_scores(model, image, config) for model in (runtime, models["plain"]))
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
    assert (ours - image_scores(runtime, image, replace(config, blend="mean"))).abs().max() > 0.01
    assert differing(image_labels(runtime, image, config), reference.argmax(dim=0)) <= 0.001


def test_small_image_is_padded_with_the_exact_mean(models: dict[str, SegViT], files: dict[str, Path]) -> None:
    image = random_images(1, (20, 50))[0]
    config = EvalConfig(window=32, stride=24)
    for name, model in models.items():
        runtime = load_onnx(files[name])
        assert float((model.mean * 255 % 1).abs().max()) > 0.1  # not a colour of uint8
        torch.testing.assert_close(
            image_scores(runtime, image, config), image_scores(model, image, config), rtol=1e-4, atol=1e-5
        )
        with pytest.raises(UserError, match=r"images are torch\.float32: an exported model takes torch\.uint8"):
            runtime(image[None].float())


def test_predict_and_evaluate_from_the_command_line(
    models: dict[str, SegViT],
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_shapes(tmp_path / "data", train=1, val=3, size=48)
    scores = {}
    models["plain"].save(tmp_path / "plain.safetensors")
    for model in (tmp_path / "plain.safetensors", files["plain"]):
        arguments = ["--data.spec", "shapes", "--data.root", str(tmp_path / "data"), "--data.workers", "0"]
        call(["evaluate", str(model), *arguments, "--json", str(tmp_path / "scores.json"), "--device", "cpu"])
        scores[model.suffix] = json.loads((tmp_path / "scores.json").read_text())["miou"]
    assert scores[".onnx"] == pytest.approx(scores[".safetensors"], abs=1e-3)
    assert scores[".onnx"] > 0

    photo = tmp_path / "data" / "images" / "val"
    call(["predict", str(files["plain"]), str(photo), "--output", str(tmp_path / "seen")])
    capsys.readouterr()
    (first, *_) = sorted(photo.iterdir())
    seen = np.asarray(Image.open(tmp_path / "seen" / f"{first.stem}.png"))
    expected = segvit.predict(models["plain"], first).labels
    assert (seen != expected).mean() <= 0.005  # four pixels tie to the last bit


def test_page_shows_how_to_run_it(
    models: dict[str, SegViT], files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "export.md").read_text()
    (code,) = re.findall(r"<!-- Run by .*? -->\n```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "model.onnx").write_bytes(files["plain"].read_bytes())
    Image.fromarray(render_scene(1)[0]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}
    exec(code, seen)
    assert seen["names"] == list(load_spec("shapes").classes)
    photo = torch.from_numpy(np.asarray(Image.open("photo.jpg")).copy()).permute(2, 0, 1)[None]
    assert differing(seen["labels"], models["plain"].predict(photo)) <= 0.001


def test_bicubic_by_matrices() -> None:
    for old, new in [((7, 9), (7, 9)), ((7, 9), (13, 4)), ((1, 5), (4, 1)), ((14, 14), (2, 40))]:
        tokens = torch.randn(1, old[0] * old[1], 6, generator=torch.Generator().manual_seed(0))
        expected = one_file.resize(tokens, old, new)
        for resized in (_resize_by_matrices(tokens, old, new), resize_tokens(tokens, old, new)):
            torch.testing.assert_close(resized, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "variant, structure, upsampling",
    [(variant, structure, "tap") for variant in VARIANTS for structure in ("plain", "shrunk")]
    + [("vit", "shrunk", "paper"), ("beitv2", "shrunk", "paper")],
)
def test_what_runs_while_exporting_is_the_same(
    variant: str, structure: Structure, upsampling: Upsampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = create_model(config=tiny_config(variant, structure, upsampling), num_classes=5).eval()
    stir(model)
    images = random_images(1, (50, 113))
    with torch.no_grad():
        expected = model(images, deep=False)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        found = model(images, deep=False)
    torch.testing.assert_close(found.mask_logits, expected.mask_logits, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.class_logits, expected.class_logits, rtol=1e-4, atol=1e-5)


def stand_in(monkeypatch: pytest.MonkeyPatch, path: Path, *, any_size: bool = True) -> None:
    """Skip the slow part of an export: whatever the model is, the graph of `path` comes out."""

    def trace(_: LabelGraph, size: tuple[int, int] | None, **options: bool) -> None:
        if size is None and not any_size:
            raise NotExportable("its grid is not to be traced")

    monkeypatch.setattr(traced_module, "trace", trace)
    monkeypatch.setattr(traced_module, "to_onnx", lambda *_: onnx.load(path))


def test_refuses_other_labels(
    models: dict[str, SegViT], files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, files["plain"])
    other = tiny("plain")
    with torch.no_grad():
        other.head.class_tokens.mul_(1.5)
    target = tmp_path / "model.onnx"
    target.write_bytes(b"the file of last week")
    with pytest.raises(UserError, match=r"cannot be exported.*% of the pixels differ; 0\.1 % is the limit"):
        export_onnx(other, target)
    assert target.read_bytes() == b"the file of last week"
    assert list(tmp_path.iterdir()) == [target]
    exported = export_onnx(models["plain"], target)
    assert exported.agreement.differing <= 0.001
    assert len(exported.agreement.sizes) == 3
    assert any(side % 2 for size in exported.agreement.sizes for side in size)


def test_own_images_are_compared_too(
    models: dict[str, SegViT], files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, files["plain"])
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(render_scene(5)[0]).save(photos / "a.png")
    without = export_onnx(models["plain"], tmp_path / "a.onnx").agreement.images
    assert export_onnx(models["plain"], tmp_path / "a.onnx", images=[photos]).agreement.images == without + 3
    with pytest.raises(UserError, match="no such file or folder"):
        export_onnx(models["plain"], tmp_path / "a.onnx", images=[tmp_path / "nowhere"])


def test_own_images_of_any_name_and_number(
    models: dict[str, SegViT], files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, files["plain"])
    folders = [tmp_path / "day", tmp_path / "night"]
    for folder in folders:
        folder.mkdir()
        for number in range(MOST_PHOTOS):
            Image.new("RGB", (32, 32), (number, 20, 30)).save(folder / f"{number:03}.png")  # the same names in both
    without = export_onnx(models["plain"], tmp_path / "a.onnx", size=(32, 32)).agreement.images
    exported = export_onnx(models["plain"], tmp_path / "a.onnx", size=(32, 32), images=folders)
    assert exported.agreement.images == without + MOST_PHOTOS


def no_work(*_: Any, **__: Any) -> None:
    """In the place of the slow part, which should not be reached."""
    raise AssertionError("the slow part has begun")


def test_what_cannot_be_written_or_read_is_told_before_the_work(
    models: dict[str, SegViT], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traced_module, "trace", no_work)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_bytes(b"")
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff no photo")
    with pytest.raises(UserError, match=r"folder\.onnx: a folder; give a file, such as .*folder\.onnx/model\.onnx"):
        export_onnx(models["plain"], tmp_path / "folder.onnx")
    for export, name in ((export_onnx, "a.onnx"), (export_program, "a.pt2")):
        with pytest.raises(UserError, match=r"bad\.jpg"):
            export(models["plain"], tmp_path / "new" / name, images=[bad])
        with pytest.raises(UserError, match=rf"{name}: cannot be written .*give another file"):
            export(models["plain"], tmp_path / "file" / name)

    def full(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(export_module, "TemporaryDirectory", full)  # root may write everywhere
    with pytest.raises(UserError, match=r"a\.onnx: cannot be written .*Permission denied"):
        export_onnx(models["plain"], tmp_path / "a.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jpg", "file", "folder.onnx"]


def test_fixed_where_any_size_is_not_to_be_had(
    models: dict[str, SegViT], files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, files["plain"], any_size=False)
    exported = export_onnx(models["plain"], tmp_path / "fixed.onnx")
    assert exported.size == (32, 32)
    assert exported.note == "its grid is not to be traced"
    assert "32 x 32 pixels only" in exported.lines()[0]
    assert "its grid is not to be traced" in exported.lines()[-1]
    runtime = load_onnx(exported.path)
    assert runtime.size == (32, 32)
    image = random_images(1, (70, 45))[0]
    assert differing(image_labels(runtime, image), image_labels(models["plain"], image)) <= 0.001  # windows of 32
    with pytest.raises(UserError, match=r"fixed to images of 32 x 32 pixels and got 70 x 45.*--window 32"):
        image_labels(runtime, image, EvalConfig(mode="whole"))
    wide = load_onnx(export_onnx(models["plain"], tmp_path / "wide.onnx", size=(32, 48)).path)
    with pytest.raises(UserError, match=r"32 x 48 pixels and got 32 x 32: give whole images of that size \(--mode who"):
        image_labels(wide, image)  # no window is as wide as that
    assert image_labels(wide, image[:, :32].repeat(1, 1, 2)[..., :48], EvalConfig(mode="whole")).shape == (32, 48)


def test_image_too_small_to_be_shrunk(models: dict[str, SegViT], files: dict[str, Path]) -> None:
    for side, fits in ((8, False), (9, True)):
        image = random_images(1, (side, 40))
        for model in (models["shrunk"], load_onnx(files["shrunk"])):
            if fits:
                assert model(image, deep=False).image_size == (side, 40)
            else:
                with pytest.raises(UserError, match="cannot be shrunk: give at least"):
                    model(image, deep=False)
        assert load_onnx(files["plain"])(image).image_size == (side, 40)


def test_half_precision(models: dict[str, SegViT], files: dict[str, Path], tmp_path: Path) -> None:
    half = to_half(onnx.load(files["plain"]))
    onnx.save(half, tmp_path / "half.onnx")
    kinds = Counter(weight.data_type for weight in half.graph.initializer if len(weight.dims) > 1)
    assert kinds[onnx.TensorProto.FLOAT16] > kinds[onnx.TensorProto.FLOAT]
    assert (tmp_path / "half.onnx").stat().st_size < 0.8 * files["plain"].stat().st_size
    images = random_images(2, (33, 51))
    (labels,) = run(tmp_path / "half.onnx", images, "labels")
    assert differing(labels, models["plain"].predict(images)) <= 0.05


@pytest.fixture(scope="module", params=["dynamic", "calibrated"])
def int8(
    request: pytest.FixtureRequest,
    models: dict[str, SegViT],
    files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The plain model in int8, in a file named after the kind of its ranges."""
    folder = tmp_path_factory.mktemp("int8")
    for seed in range(3):
        Image.fromarray(render_scene(seed, 48)[0]).save(folder / f"{seed}.png")
    photos = sorted(folder.glob("*.png")) if request.param == "calibrated" else []
    windows = calibration_windows(models["plain"], photos, None)
    windows = windows and [*windows, windows[0][:, :20], windows[1][:, :, :9]]  # a whole image is of any size
    with redirect_stdout(StringIO()) as printed:
        to_int8(files["plain"], folder / f"{request.param}.onnx", windows)
    assert not printed.getvalue()
    return folder / f"{request.param}.onnx"


def test_int8_rounds_weights_to_what_every_processor_can_add(int8: Path, files: dict[str, Path]) -> None:
    graph = onnx.load(int8).graph
    weights = [onnx.numpy_helper.to_array(item) for item in graph.initializer if item.name.endswith("_quantized")]
    assert len(weights) > 10
    assert {weight.dtype for weight in weights} == {np.dtype(np.int8)}  # TensorRT reads no others
    # Without VNNI, an x86 processor adds two products in 16 bits, and clips the sum.
    assert max(2 * 255 * np.abs(weight.astype(int)).max() for weight in weights) <= 2**15 - 1
    assert rounding_errors(graph, onnx.load(files["plain"]).graph) == pytest.approx(0.5, abs=0.02)


def test_int8_kernels_compute_the_exact_products(int8: Path, models: dict[str, SegViT]) -> None:
    """On any processor. With weights of 8 bits, half of the labels differ on one that adds in 16 bits."""
    outputs = ["labels", "class_logits", "mask_logits"]
    scene = torch.from_numpy(render_scene(9)[0]).permute(2, 0, 1)[None].contiguous()
    for images in (random_images(2, (33, 51)), scene):
        found = run(int8, images, *outputs)
        exact = exact_session(int8).run(outputs, {"images": images.numpy()})
        assert (found[0] != exact[0]).mean() <= 0.01
        for ours, theirs in zip(found[1:], exact[1:], strict=True):
            assert np.abs(ours - theirs).mean() <= 0.01 * np.abs(theirs).mean()
        assert differing(found[0], models["plain"].predict(images)) <= 0.1


@pytest.mark.parametrize("calibrated", [False, True])
def test_int8_of_added_classes(
    models: dict[str, SegViT], files: dict[str, Path], tmp_path: Path, calibrated: bool
) -> None:
    model, scenes = models["extended"], [torch.from_numpy(render_scene(seed, 48)[0]) for seed in range(3)]
    to_int8(files["extended"], tmp_path / "int8.onnx", [scene.permute(2, 0, 1) for scene in scenes * calibrated])
    images = torch.stack([scene.permute(2, 0, 1) for scene in scenes])
    (labels,) = run(tmp_path / "int8.onnx", images, "labels")
    assert differing(labels, model.predict(images)) <= 0.15
    assert {*range(8, 11)} <= {*np.unique(labels)}


def test_int8_rounds_only_the_inputs_of_products_with_weights(int8: Path) -> None:
    graph = onnx.load(int8).graph
    source = {name: node for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type in ("MatMul", "MatMulInteger")]
    used = Counter(node.op_type for node in graph.node)
    if int8.stem == "dynamic":
        assert used["DynamicQuantizeLinear"] > 5
        assert not used["QuantizeLinear"]
        rounded = [node for node in products if node.op_type == "MatMulInteger"]
        assert all(node.input[1].endswith("_quantized") for node in rounded)
    else:
        kinds = [[source[name].op_type if name in source else "" for name in node.input] for node in products]
        rounded = [node for node, kind in zip(products, kinds, strict=True) if "DequantizeLinear" in kind]
        assert all(kind == ["DequantizeLinear"] * 2 for kind in kinds if "DequantizeLinear" in kind)
        assert all(source[node.input[1]].input[0].endswith("_quantized") for node in rounded)
        outputs = {name for node in products for name in node.output}
        assert not outputs & {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
        zeros = [value for value in graph.initializer if value.name.endswith("zero_point")]
        assert not any(onnx.numpy_helper.to_array(zero).any() for zero in zeros)  # symmetric, as TensorRT requires
    assert 10 < len(rounded) < len(products)


def test_no_precision_asks_for_a_newer_runtime(files: dict[str, Path], int8: Path, tmp_path: Path) -> None:
    """ONNX Runtime 1.15 reads no newer file format than 9, JetPack and Debian have such versions."""
    onnx.save(to_half(onnx.load(files["plain"])), tmp_path / "half.onnx")
    for path in (*files.values(), tmp_path / "half.onnx", int8):
        for model in (onnx.load(path), onnx.load_from_string(with_valid(onnx.load(path)))):
            assert model.ir_version == IR_VERSION == 8
            assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]


def rounding_errors(quantized: onnx.GraphProto, graph: onnx.GraphProto) -> float:
    """The largest error of an int8 weight, in steps of its scale: half a step where each is rounded to the nearest."""
    values = {weight.name: onnx.numpy_helper.to_array(weight) for weight in quantized.initializer}
    errors = []
    for weight in graph.initializer:
        if (steps := values.get(f"{weight.name}_quantized")) is not None and weight.name not in values:
            scale, zero = (values[f"{weight.name}_{part}"] for part in ("scale", "zero_point"))
            exact = onnx.numpy_helper.to_array(weight).astype(np.float64)
            errors.append(np.abs(exact / scale - (steps.astype(np.float64) - zero)).max())
    assert len(errors) > 10
    return float(max(errors))


def test_calibration_sees_what_the_protocol_shows(tmp_path: Path) -> None:
    model = tiny(image_size=16)
    model.protocol = EvalConfig(resize_short=24, window=16)
    path = tmp_path / "photo.png"
    Image.new("RGB", (60, 48), (10, 20, 30)).save(path)
    (window,) = calibration_windows(model, [path], None)
    assert window.shape == (3, 16, 16)
    assert calibration_windows(model, [path], (40, 24))[0].shape == (3, 40, 24)
    model.protocol = EvalConfig(window=70)
    (window,) = calibration_windows(model, [path], None)
    assert window.shape == (3, 70, 70)
    assert window[:, :48, :60].flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]
    assert window[:, 48, 60].tolist() == (model.mean * 255).round().int().tolist()  # padded as in windows
    model.protocol = EvalConfig(mode="whole")
    assert calibration_windows(model, [path], None)[0].shape == (3, 48, 60)


@pytest.mark.slow
def test_torch_program(models: dict[str, SegViT], tmp_path: Path) -> None:
    exported = export_program(models["plain"], tmp_path / "model.pt2")
    assert exported.size is None
    extra = {HEADER_KEY: ""}
    module = torch.export.load(exported.path, extra_files=extra).module()
    for batch, size in ((1, (32, 32)), (3, (64, 40)), (1, (33, 51))):
        images = random_images(batch, size)
        assert differing(module(images)[0], models["plain"].predict(images)) <= 0.001
    assert json.loads(extra[HEADER_KEY])["export"]["cell"] == 8


def test_model_is_left_alone(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, files["plain"])
    model = tiny().train()
    export_onnx(model, tmp_path / "model.onnx")
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_files_that_are_no_models(tmp_path: Path, files: dict[str, Path]) -> None:
    bad = tmp_path / "bad.onnx"
    with pytest.raises(UserError, match=r"no model file .*bad\.onnx: give an \.onnx file"):
        OnnxModel(bad)
    whole = files["plain"].read_bytes()
    for content, told in (
        (b"", r"an empty file \(0 bytes\).*fetch it again"),
        (b"<html>not found</html>", "a web page instead of weights"),
        (whole[:5000], "not a whole ONNX file .*cut short"),
        (whole[:-1], "not a whole ONNX file .*cut short"),
    ):
        bad.write_bytes(content)
        with pytest.raises(UserError, match=rf"bad\.onnx: {told}"):
            OnnxModel(bad)
    foreign = onnx.load(files["plain"])
    header = json.loads(foreign.metadata_props[0].value)
    del header["export"]["cell"]
    set_metadata(foreign, HEADER_KEY, json.dumps(header))
    onnx.save(foreign, bad)
    with pytest.raises(UserError, match=r"bad\.onnx: .*another version of segvit \(no cell.*export the model again"):
        OnnxModel(bad)
    foreign.graph.node[0].domain = "somebody.elses"  # which onnxruntime does not run
    onnx.save(foreign, bad)
    with pytest.raises(UserError, match=r"another version of segvit"):
        OnnxModel(bad)
    del foreign.metadata_props[:]
    onnx.save(foreign, bad)
    with pytest.raises(UserError, match=r"bad\.onnx: an ONNX file, but not written by segvit"):
        OnnxModel(bad)
    with pytest.raises(UserError, match=r".* is a folder: give an \.onnx file"):
        OnnxModel(tmp_path)
    for read in (read_header, load_model):
        with pytest.raises(UserError, match=r"plain\.onnx: an exported model.*give the \.safetensors file"):
            read(files["plain"])
    with pytest.raises(UserError, match=r"does not run on 'mps'; type --device cpu"):
        OnnxModel(files["plain"], device="mps")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package_says_what_to_install(
    models: dict[str, SegViT], files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    told = re.escape("pip install 'segvit[export]'")
    with pytest.raises(UserError, match=f"{package}.*{told}"):
        export_onnx(models["plain"], tmp_path / "model.onnx")
    if package != "onnxscript":
        with pytest.raises(UserError, match=f"{package}.*{told}"):
            load_onnx(files["plain"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["model.bin"], "ends in .onnx (onnx), .pt2 (torch)"),
        (["model.pt2", "--precision", "int8"], "precision 'int8': .pt2 files are written in fp32"),
        (
            ["model.pt2", "--format", "onnx"],
            "format onnx needs a name that ends in .onnx, and .pt2 is torch; give model.o",
        ),
        (["model", "--format", "torch"], "format torch needs a name that ends in .pt2; give model.pt2"),
        (["model.onnx", "--format", "onyx"], "did you mean 'onnx'"),
        (["model.pt2", "--data.spec", "shapes"], "only .onnx and .xml files can be scored"),
        (["model.onnx", "--size", "8", "8"], "at least 16 x 16 pixels"),
        (["model.onnx", "--images", "nowhere"], "no such file or folder: nowhere"),
    ],
)
def test_wrong_arguments(
    models: dict[str, SegViT],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    models["plain"].save("plain.safetensors")
    with pytest.raises(SystemExit) as leave:
        call(["export", "plain.safetensors", *arguments])
    assert leave.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["plain.safetensors"]


def call(arguments: list[str]) -> None:
    """`segvit` with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segvit", *arguments])
        cli.main()


@pytest.mark.slow
def test_command_line_exports_and_scores(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_shapes(tmp_path / "data", train=4, val=4, size=48)
    torch.manual_seed(0)
    model = create_model(
        config=replace(TINY, structure="shrunk", depth=3), num_classes=8, spec=load_spec("shapes")
    ).eval()
    tell_apart(model)  # not stirred: large weights do not bear half precision
    model.save(tmp_path / "model.safetensors")
    data = ["--data.spec", "shapes", "--data.root", str(tmp_path / "data"), "--data.workers", "0"]
    photos = ["--images", str(tmp_path / "data" / "images" / "train")]
    for precision in ("fp16", "int8"):
        target = tmp_path / f"{precision}.onnx"
        call(["export", str(tmp_path / "model.safetensors"), str(target), "--precision", precision, *data, *photos])
        seen = capfd.readouterr()
        assert not seen.err
        assert "any batch, any height and width" in seen.out
        assert f"ONNX Runtime {precision}" in seen.out
        assert ("calibrated on 4 images" in seen.out) == (precision == "int8")
        assert load_onnx(target).export["precision"] == precision
    call(["export", str(tmp_path / "model.safetensors"), str(tmp_path / "fixed.onnx"), "--size", "40", "56"])
    assert load_onnx(tmp_path / "fixed.onnx").size == (40, 56)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant, structure, changes",
    [(variant, structure, {}) for variant in VARIANTS for structure in get_args(Structure)]
    + [(variant, "shrunk", {"upsampling": "paper"}) for variant in ("vit", "beitv2")]
    + [(variant, "shrunk", {"downsampling": "edge"}) for variant in ("vit", "beitv2", "dinov3")]
    + [(variant, "plain", {"merge_shares": (0.4, 0.5)}) for variant in ("vit", "beitv2", "dinov3")]
    + [(variant, "plain", {"upscaler": "conv", "head_classes": "presence"}) for variant in ("vit", "eva02")],
    ids=str,
)
def test_every_family_takes_any_size(
    variant: str, structure: Structure, changes: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = tiny_config(variant, structure, changes.get("upsampling", "tap"))
    model = create_model(config=replace(config, head_num_layers=1, **changes), num_classes=5).eval()
    stir(model)
    if model.upscaler is not None:
        torch.nn.init.normal_(model.upscaler.coefficients)
    tell_apart(model)
    exported = export_onnx(model, tmp_path / "model.onnx")
    assert exported.size is None, exported.note
    assert not Counter(node.op_type for node in onnx.load(exported.path).graph.node).keys() - TENSORRT
    program = export_program(model, tmp_path / "model.pt2")
    assert program.size is None, program.note


@pytest.mark.slow
def test_dataset_scores_equal(shared_data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(DataConfig(spec="camvid", root=shared_data / "camvid"), "val")
    spec = load_spec("camvid")
    torch.manual_seed(1)
    model = create_model(config=replace(TINY, image_size=64), num_classes=spec.num_classes, spec=spec).eval()
    model.protocol = EvalConfig(resize_short=64)
    stir(model)
    tell_apart(model)
    exported = export_onnx(model, tmp_path / "model.onnx")
    ours, theirs = segvit.evaluate(model, dataset), segvit.evaluate(load_onnx(exported.path), dataset)
    assert theirs.miou == pytest.approx(ours.miou, abs=1e-3)
