"""The one door of all formats: what it asks of a format, what it checks for each, and how it places the result."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import segvit.export.export as export_module
from segvit.errors import UserError
from segvit.export.export import export_model
from segvit.export.formats.format import Format
from segvit.export.formats.table import FORMATS, choose_format, describe_formats
from segvit.export.graph import LabelGraph
from segvit.export.placement import place
from segvit.models.create import create_model
from segvit.models.segvit import SegViT
from tests.helpers.tiny import stir, tell_apart, tiny_config


class Weights(Format):
    """A format that keeps PyTorch's weights, and computes with them."""

    name = "weights"
    suffix = ".weights"
    precisions = ("fp32", "int8")
    int8_images = "required"

    def write(self, traced: Any, file: Path, precision: Any, windows: Sequence[Tensor]) -> None:
        self.graph: LabelGraph = traced.graph
        file.write_text(precision)

    def run(self, file: Path) -> Callable[[Tensor], Tensor]:
        return lambda images: self.graph(images)[0]

    def add_header(self, file: Path, traced: Any, header: str) -> None:
        file.with_suffix(".json").write_text(header)

    def files(self, path: Path) -> tuple[Path, ...]:
        return (path, path.with_suffix(".json"))


class Folder(Weights):
    """The same in a folder, for one image of one size."""

    name = "folder"
    suffix = ""
    any_size = any_batch = False
    marker = "weights"

    def write(self, traced: Any, file: Path, precision: Any, windows: Sequence[Tensor]) -> None:
        file.mkdir()
        super().write(traced, file / "weights", precision, windows)

    def run(self, file: Path) -> Callable[[Tensor], Tensor]:
        def run(images: Tensor) -> Tensor:
            assert len(images) == 1
            labels: Tensor = self.graph(images)[0]
            return labels

        return run

    def add_header(self, file: Path, traced: Any, header: str) -> None:
        (file / "header.json").write_text(header)

    def files(self, path: Path) -> tuple[Path, ...]:
        return (path,)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SegViT:
    for form in (Weights(), Folder()):
        monkeypatch.setitem(FORMATS, form.name, form)
    torch.manual_seed(0)
    model = create_model(config=tiny_config("vit"), num_classes=5).eval()
    stir(model)
    tell_apart(model)
    return model


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_with_another_beside_it(model: SegViT, tmp_path: Path) -> None:
    exported = export_model(model, tmp_path / "new" / "a.weights")
    assert names(tmp_path / "new") == ["a.json", "a.weights"]
    assert exported.num_bytes == sum(path.stat().st_size for path in (tmp_path / "new").iterdir())
    header = json.loads((tmp_path / "new" / "a.json").read_text())["export"]
    assert (header["format"], header["precision"], header["size"]) == ("weights", "fp32", None)
    assert "fp32" in exported.lines()[0] and "any batch, any height and width" in exported.lines()[0]
    (tmp_path / "b.json").write_text("somebody else's")
    with pytest.raises(UserError, match=r"b\.json exists without .*b\.weights"):
        export_model(model, tmp_path / "b.weights")
    (tmp_path / "a.json").mkdir()
    (tmp_path / "a.json" / "notes").touch()
    (tmp_path / "a.weights").touch()
    with pytest.raises(UserError, match=r"a\.json: a folder, where a file beside a\.weights is written"):
        export_model(model, tmp_path / "a.weights")


def test_a_folder_for_one_image_of_one_size(model: SegViT, tmp_path: Path) -> None:
    for _ in range(2):  # the second replaces the first
        exported = export_model(model, tmp_path / "page", format="folder")
        assert names(tmp_path) == ["page"] and names(tmp_path / "page") == ["header.json", "weights"]
    assert exported.size == (64, 64)
    assert exported.note == "folder exports take images of one size"
    assert "one image at a time, 64 x 64 pixels only" in exported.lines()[0]
    assert exported.num_bytes == sum(path.stat().st_size for path in (tmp_path / "page").iterdir())
    assert export_model(model, tmp_path / "wide", format="folder", size=(40, 70)).note is None
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"a photo")
    with pytest.raises(UserError, match=r"photos: a folder with other files, which is not replaced"):
        export_model(model, photos, format="folder")
    with pytest.raises(UserError, match=r"a\.jpg: a file, and folder writes a folder"):
        export_model(model, photos / "a.jpg", format="folder")


def test_images_where_a_precision_needs_them(model: SegViT, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"int8: \.weights files are calibrated on images; give your own \(--images"):
        export_model(model, tmp_path / "a.weights", precision="int8")
    with pytest.raises(UserError, match=r"'fp16': \.weights files are written in fp32, int8"):
        export_model(model, tmp_path / "a.weights", precision="fp16")
    assert not names(tmp_path)


def test_other_labels_leave_the_old_files(model: SegViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_model(model, tmp_path / "page", format="folder")
    before = (tmp_path / "page" / "header.json").read_bytes()
    monkeypatch.setattr(Folder, "run", lambda self, file: lambda images: 1 + self.graph(images)[0])
    with pytest.raises(UserError, match=r"100\.000 % of the pixels differ"):
        export_model(model, tmp_path / "page", format="folder")
    assert names(tmp_path) == ["page"] and (tmp_path / "page" / "header.json").read_bytes() == before


def test_a_runtime_that_fails_without_a_text(model: SegViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(images: Tensor) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(Weights, "run", lambda *_: fail)
    with pytest.raises(UserError, match=r"the graph fails at 64 x 64: AssertionError"):
        export_model(model, tmp_path / "a.weights")
    assert not names(tmp_path)


@pytest.mark.parametrize("name", ["MODEL.XML", "model.MLpackage"])
def test_endings_that_tools_take_in_lower_case_only(model: SegViT, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"takes its ending in lower case only; give .*{Path(name).stem}\.(xml|mlp)"):
        export_model(model, tmp_path / name)


def test_the_command_after_a_page_can_be_copied() -> None:
    (line,) = FORMATS["web"].next_steps(Path("my site"))
    assert "`python -m http.server --directory 'my site'`" in line


def test_the_main_file_never_meets_parts_of_another_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = [tmp_path / "new" / name for name in ("a.xml", "a.bin")]
    targets = [tmp_path / "a.xml", tmp_path / "a.bin"]
    built[0].parent.mkdir()
    for path, text in ((built[0], "new"), (built[1], "new"), (targets[0], "old"), (targets[1], "old")):
        path.write_text(text)
    seen = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append([path.read_text() if path.exists() else None for path in targets])
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    place(built, targets)
    assert seen == [[None, "old"], [None, "new"]]
    assert [path.read_text() for path in targets] == ["new", "new"]


@pytest.mark.parametrize(
    ("path", "name", "told"),
    [
        ("model", None, r"ends in \.onnx \(onnx\), \.pt2 \(torch\).*or choose by --format"),
        ("model.bin", None, r"ends in \.onnx \(onnx\)"),
        ("model.pt2", "onnx", r"needs a name that ends in \.onnx, and \.pt2 is torch; give model\.onnx"),
        ("model.bin", "onnx", r"needs a name that ends in \.onnx; give model\.onnx"),
        ("model.onnx", "folder", r"folder needs the name of a folder, and \.onnx is onnx; give model"),
        (".", "onnx", r"\.: no name of a file or folder to write; give one, such as model\.onnx"),
        (".", "folder", "no name of a file or folder"),
        ("a/..", "folder", r"a/\.\.: no name of a file or folder to write; give one, such as a/\.\./model\.onnx"),
        ("model.onnx", "tensorflow", r"format 'tensorflow'.*give onnx, torch"),
    ],
)
def test_formats_that_cannot_be_chosen(model: SegViT, path: str, name: str | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        choose_format(Path(path), name)


def test_the_page_of_formats_lists_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    found = {cells[0].strip("| `"): cells for cells in rows}
    for name, form in FORMATS.items():
        assert found[name][1].startswith(form.suffix or "a folder")
        assert found[name][2] == ", ".join(form.precisions)
        for beside in form.files(Path("model").with_suffix(form.suffix))[1:]:
            assert f"with a {beside.name.removeprefix('model')} beside it" in found[name][1]


def test_every_format_is_complete(model: SegViT) -> None:
    assert choose_format(Path("a/MODEL.ONNX"), None) is FORMATS["onnx"]
    assert choose_format(Path("page"), "folder") is FORMATS["folder"]
    endings = [form.suffix for form in FORMATS.values() if form.suffix]
    assert len({*endings}) == len(endings)
    for name, form in FORMATS.items():
        assert form.name == name and f"{name} (" in describe_formats()
        assert {*form.precisions} <= export_module.MOST_DIFFERING.keys()
        assert form.int8_images == "unused" or "int8" in form.precisions
        assert not form.packages or form.extra
        assert form.files(Path("a"))[0] == Path("a")
