"""The runtime of pages: found, checked against its digests, or fetched with npm; and the graphs that it runs."""

import hashlib
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from segvit.errors import UserError
from segvit.export.formats.web import WebPage
from segvit.export.web import runtime
from segvit.export.web.graphs import logits_graph, scores_graph
from segvit.export.web.runtime import runtime_files, runtime_folder
from segvit.inference.tiles import View
from segvit.models.output import SegOutput
from segvit.models.scores import class_probabilities, scores

CONTENT = {"ort.wasm.bundle.min.mjs": b"export {}", "ort-wasm-simd-threaded.wasm": b"\0asm"}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pin small files, and start in an empty folder, without npm and with an empty cache."""
    monkeypatch.setattr(runtime, "DIGESTS", {name: hashlib.sha256(text).hexdigest() for name, text in CONTENT.items()})
    monkeypatch.setenv("SEGVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


def unpacked(folder: Path, **changes: bytes | None) -> Path:
    (folder / "dist").mkdir(parents=True)
    for name, content in (CONTENT | changes).items():
        if content is not None:
            (folder / "dist" / name).write_bytes(content)
    return folder


def packed(path: Path, **changes: bytes | None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(unpacked(path.parent / "to_pack" / "package", **changes), "package")
    return path


def test_a_package_that_is_given(tmp_path: Path) -> None:
    folder, archive = unpacked(tmp_path / "unpacked"), packed(tmp_path / "package.tgz")
    for given in (folder, folder / "dist", archive, tmp_path / "to_pack"):
        assert runtime_files(given) == CONTENT
    assert not runtime_folder().exists()


def test_a_package_that_is_found(tmp_path: Path) -> None:
    unpacked(Path("node_modules") / "onnxruntime-web")
    assert runtime_files() == CONTENT
    runtime_folder().mkdir(parents=True)
    for name in CONTENT:
        (runtime_folder() / name).write_bytes(b"changed")
    with pytest.raises(UserError, match=r"ort\.wasm\.bundle\.min\.mjs is not the file of onnxruntime-web 1\.\d+"):
        runtime_files()  # the cache comes first


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda folder: folder / "none.tgz", r"none\.tgz: no such file or folder; type `npm pack onnxruntime-web@1"),
        (lambda folder: unpacked(folder / "a", **{"ort-wasm-simd-threaded.wasm": None}), r"no file dist/ort-wasm"),
        (
            lambda folder: packed(folder / "b.tgz", **{"ort-wasm-simd-threaded.wasm": None}),
            r"b\.tgz: not onnx.*no file",
        ),
        (
            lambda folder: packed(folder / "c.tgz", **{"ort-wasm-simd-threaded.wasm": b"2"}),
            r"c\.tgz: ort-wasm.* is not",
        ),
        (lambda folder: cut(packed(folder / "d.tgz")), r"d\.tgz: not a whole archive of npm \("),
    ],
)
def test_packages_that_are_wrong(make: Callable[[Path], Path], text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=text):
        runtime_files(make(tmp_path))


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:60])
    return path


def npm(tmp_path: Path, code: str) -> None:
    """A program npm that runs Python code."""
    (program := tmp_path / "programs" / "npm").parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport shutil, sys\n{code}\n")
    program.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for npm is a script")
def test_npm_fetches_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"npm, which fetches it, is not installed.*type `npm pack onnxruntime-web@1"):
        runtime_files()
    packed(tmp_path / "source.tgz")
    wanted = f"['pack', '{runtime.PACKAGE}@{runtime.VERSION}']"
    checked = f"assert sys.argv[1:3] == {wanted} and '--silent' not in sys.argv"  # which would hide reasons
    npm(tmp_path, f"{checked}\nshutil.copy({str(tmp_path / 'source.tgz')!r}, 'x.tgz')")
    assert runtime_files() == CONTENT
    assert "fetching onnxruntime-web" in capsys.readouterr().out
    (tmp_path / "programs" / "npm").unlink()
    assert runtime_files() == CONTENT
    assert sorted(path.name for path in runtime_folder().iterdir()) == sorted(CONTENT)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for npm is a script")
def test_npm_that_fails(tmp_path: Path) -> None:
    npm(tmp_path, "sys.exit('no network\\nmore')")
    with pytest.raises(UserError, match=r"npm could not fetch onnxruntime-web .* \(no network\); type `npm pack"):
        runtime_files()
    assert not runtime_folder().exists()


def test_only_models_of_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimpleNamespace(spec=None, mean=torch.zeros(4), backbone=None)
    graph: Any = SimpleNamespace(model=model, with_scores=False, parameters=list)
    with pytest.raises(UserError, match="red, green and blue in 8 bits"):
        WebPage().check_model(graph)
    model.mean = torch.zeros(3)
    WebPage().check_model(graph)
    graph.with_scores = True
    with pytest.raises(UserError, match="--scores: a page has no such output"):
        WebPage().check_model(graph)


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_the_model_without_its_label_map() -> None:
    def tensor(name: str, kind: int, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    nodes = [
        helper.make_node("Cast", ["valid"], ["size"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["size"], ["area"], keepdims=0),
        helper.make_node("Mul", ["unit", "weight"], ["mask_logits"]),
        helper.make_node("Mul", ["mask_logits", "unused"], ["volume"]),
        helper.make_node("ArgMax", ["volume"], ["labels"], axis=0, keepdims=0),
        helper.make_node("Mul", ["unit", "area"], ["class_logits"]),
        helper.make_node("Cast", ["images"], ["unit"], to=TensorProto.FLOAT),  # as half precision appends its casts
    ]
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [value]) for name, value in (("weight", 2), ("unused", 3))
    ]
    weights.append(helper.make_tensor("valid", TensorProto.INT64, [2], [2**31 - 1] * 2))
    outputs = [
        tensor("labels", TensorProto.INT64),
        *(tensor(name, TensorProto.FLOAT, 2) for name in ("class_logits", "mask_logits")),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("images", TensorProto.UINT8, 2)],
        outputs,
        weights,
        value_info=[tensor("volume", TensorProto.FLOAT, 2), tensor("unit", TensorProto.FLOAT, 2)],
    )
    reduced = logits_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    assert [item.name for item in reduced.graph.input] == ["images", "valid"]
    assert [item.name for item in reduced.graph.initializer] == ["weight"]
    assert len(reduced.graph.node) == 5
    assert [item.name for item in reduced.graph.value_info] == ["unit"]
    session = onnxruntime.InferenceSession(reduced.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": np.array([1, 5], np.uint8), "valid": np.array([3, 4])})
    assert [values.tolist() for values in found] == [[7, 35], [2, 10]]


@pytest.mark.parametrize("presence", [False, True])
def test_scores_are_those_of_segvit(presence: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    class_logits = torch.randn(1, 1, 5, 1 if presence else 8, generator=generator)
    mask_logits = torch.randn(1, 1, 5, 3, 4, generator=generator)
    output = SegOutput(class_logits, mask_logits, (21, 30), (24, 32))
    probabilities = class_probabilities(output)
    view = View.of_image(probabilities, mask_logits[-1], (21, 30), (24, 32))
    graph = scores_graph(presence=presence).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    inputs = {
        "class_logits": class_logits[0, 0].numpy(),
        "mask_logits": mask_logits[0, 0].numpy(),
        "rows": view.rows[4:9].numpy(),
        "columns": view.columns.T.contiguous().numpy(),
    }
    (found,) = session.run(None, inputs)
    torch.testing.assert_close(torch.from_numpy(found).view(-1, 5, 30), scores(output)[0, :, 4:9])
