"""Model files: what does not fit or is not ours is told, all of it, and nothing in a file is ever run."""

import json
import os
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import load_state_dict_from_file
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import segvit.weights.model_file as weights_module
from segvit.config import ModelConfig
from segvit.config_files import without_folders
from segvit.data.spec import DatasetSpec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.profiling.info import describe
from segvit.training.checkpoint import load_checkpoint
from segvit.weights.load import load_model
from segvit.weights.model_file import HEADER_KEY, load_strictly, read_header

CONFIG = ModelConfig(backbone="vit_tiny_patch16_224", image_size=32, embed_dim=32, depth=2, num_heads=2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    create_model(config=CONFIG, num_classes=3).save(path)
    return path


def rewrite(file: Path, folder: Path, *, drop: str = "", header: dict[str, Any] | None = None, **tensors: Any) -> Path:
    """A copy of a model file with some tensors or parts of the header changed."""
    state = load_file(file)
    with safe_open(file, framework="pt") as opened:
        content = json.loads(opened.metadata()[HEADER_KEY])
    state = {name: value for name, value in state.items() if name != drop} | tensors
    path = folder / "changed.safetensors"
    save_file(state, path, metadata={HEADER_KEY: json.dumps(content | (header or {}))})
    return path


def test_what_does_not_fit_is_listed_whole_and_changes_nothing() -> None:
    model = create_model(config=CONFIG, num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: torch.zeros_like(value) for name, value in before.items()}
    del state["head.class_tokens"], state["backbone.blocks.1.norm1.bias"]
    state["head.classifier.weight"] = torch.zeros(7, 16)
    state["head.extra"] = torch.zeros(2, 5)
    with pytest.raises(UserError) as caught:
        load_strictly(model, state, source="there.safetensors")
    rows = [" ".join(row.split()) for row in str(caught.value).splitlines()]
    assert rows[0].startswith("there.safetensors: ")
    assert "missing head.class_tokens (3, 16)" in rows
    assert "missing backbone.blocks.1.norm1.bias (32,)" in rows
    assert "unexpected head.extra (2, 5)" in rows
    assert "mis-shaped head.classifier.weight: (7, 16) in the file, (4, 16) in the model" in rows
    assert len(rows) == 5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "change, row",
    [
        ({"drop": "head.class_tokens"}, r"missing +head\.class_tokens"),
        ({"extra": torch.zeros(2)}, r"unexpected +extra"),
        ({"mean": torch.zeros(4)}, r"mis-shaped +mean: \(4,\) in the file, \(3,\) in the model"),
    ],
    ids=["missing", "unexpected", "mis-shaped"],
)
def test_a_file_that_does_not_fit_its_own_config_is_told(
    file: Path, tmp_path: Path, change: dict[str, Any], row: str
) -> None:
    with pytest.raises(UserError, match=rf"(?s)changed\.safetensors.*do not fit.*{row}"):
        load_model(rewrite(file, tmp_path, **change))


def not_ours(kind: str, file: Path, path: Path) -> None:
    """Write to `path` what people hand over by mistake."""
    content = file.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut in the header":
        path.write_bytes(content[:100])
    elif kind == "cut in the weights":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "a byte short":
        path.write_bytes(content[:-1])
    elif kind == "a web page":
        path.write_text("<!DOCTYPE html><html><body>404: Not Found</body></html>" * 20)
    elif kind == "a pointer of git lfs":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123456\n")
    elif kind == "a torch file":
        torch.save({"weight": torch.zeros(3)}, path)
    else:
        assert kind == "noise"
        path.write_bytes(bytes(range(256)) * 40)


KINDS = {
    "empty": r"an empty file \(0 bytes\).*fetch it again",
    "cut in the header": "not a complete safetensors file.*cut short",
    "cut in the weights": "not a complete safetensors file.*cut short",
    "a byte short": "not a complete safetensors file.*cut short",
    "a web page": "a web page instead of weights",
    "a pointer of git lfs": "a pointer of git lfs.*git lfs pull",
    "a torch file": r"a file of torch\.save.*`segvit convert",
    "noise": "not a complete safetensors file.*another format",
}
"""What is said of each."""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_model_file_is_told(kind: str, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "given.safetensors"
    not_ours(kind, file, path)
    for read in (read_header, load_model):
        with pytest.raises(UserError, match=rf"given\.safetensors: {KINDS[kind]}"):
            read(path)


def test_the_weights_of_an_exported_model_are_told(tmp_path: Path) -> None:
    for name in ("model.xml", "model.bin", "other.bin"):
        (tmp_path / name).write_bytes(b"\1" * 100)
    with pytest.raises(UserError, match=r"the weights of an exported model; give its other file, .*model\.xml, to"):
        read_header(tmp_path / "model.bin")
    with pytest.raises(UserError, match="not a complete safetensors file"):
        read_header(tmp_path / "other.bin")


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError, match=rf"no model file {path}"):
            load_model(path)


def test_a_safetensors_file_of_others_is_told(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"blocks.0.weight": torch.zeros(2)}, path, metadata=metadata)
        with pytest.raises(UserError, match=r"vit\.safetensors.*not written by segvit"):
            load_model(path)


@pytest.mark.parametrize("content", ["hello", "3", "{}", '{"model": {}}', ""])
def test_a_header_that_is_not_ours_is_told(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={HEADER_KEY: content})
    with pytest.raises(UserError, match=r"other\.safetensors.*not written by segvit"):
        load_model(path)


def test_a_file_of_a_newer_version_is_told(file: Path, tmp_path: Path) -> None:
    path = rewrite(file, tmp_path, header={"model": {**asdict(CONFIG), "telepathy": 3}})
    with pytest.raises(UserError, match=r"changed\.safetensors.*newer segvit.*telepathy"):
        load_model(path)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("read", [load_model, load_checkpoint], ids=["model", "checkpoint"])
@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_a_pickle_is_refused_and_runs_nothing(read: Any, write: str, tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "trap.pt"  # torch.load looks at the suffix
    if write == "pickle":
        path.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    else:
        torch.save({"step": Trap(sprung)}, path)
    with pytest.raises(UserError, match=r"trap\.pt"):
        read(path)
    assert not sprung.exists()
    if write == "pickle":
        pickle.loads(path.read_bytes())
        assert sprung.exists()  # the trap does work


def test_a_write_that_fails_leaves_the_old_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file.read_bytes())

    def break_off(_: Any, to: Path, **__: Any) -> None:
        Path(to).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(weights_module, "save_file", break_off)
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be written \(disk full\)"):
        load_model(file).save(path)
    assert path.read_bytes() == file.read_bytes() and list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written_is_told(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by the kind of error that the safetensors library has for it."""
    model = load_model(file)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "model.safetensors", tmp_path / "folder"):
        with pytest.raises(UserError, match=rf"{path}: cannot be written"):
            model.save(path)
    (tmp_path / "aside").mkdir()
    save = weights_module.save_file
    monkeypatch.setattr(weights_module, "save_file", lambda state, _, **more: save(state, tmp_path / "aside", **more))
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be written"):
        model.save(tmp_path / "model.safetensors")


@pytest.mark.skipif(os.name == "nt", reason="access is another matter on Windows")
def test_a_model_may_be_read_by_whom_the_users_files_may(file: Path, tmp_path: Path) -> None:
    model, (path, other) = load_model(file), (tmp_path / name for name in ("model.safetensors", "other"))
    before = os.umask(0o027)
    try:
        model.save(path)
        other.touch()
    finally:
        os.umask(before)
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("key", ["model", "num_classes", "protocol", "spec", "version"])
def test_what_is_the_files_own_cannot_be_in_extra(key: str, file: Path, tmp_path: Path) -> None:
    model = load_model(file)
    model.extra = {"mine": 1, key: "x"}
    with pytest.raises(UserError, match=rf"extra.*{key}"):
        model.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_extra_takes_plain_values_and_paths_alone(file: Path, tmp_path: Path) -> None:
    model, path = load_model(file), tmp_path / "model.safetensors"
    model.extra = {"from": Path("a") / "b", "mine": [1, {"x": None}]}
    model.save(path)
    assert load_model(path).extra == {"from": str(Path("a") / "b"), "mine": [1, {"x": None}]}
    model.extra = {"loss": torch.ones(1)}
    with pytest.raises(UserError, match=r"extra.*Tensor.*\.tolist\(\)"):
        model.save(path)


# Published


def test_no_folder_of_the_user_is_in_a_file(tmp_path: Path) -> None:
    images, labels = tmp_path / "private" / "photos", tmp_path / "private" / "masks"
    spec = DatasetSpec.from_dict(
        {
            "name": "/road",
            "classes": [{"name": "../a", "raw": 0}, {"name": "~b", "raw": 1}],
            "splits": {
                "train": {"images": str(images), "labels": str(labels)},
                "val": {"images": "a/b", "labels": "c"},
            },
        },
        source="x",
    )
    config = replace(CONFIG, pretrained_file=tmp_path / "private" / "w.pth", position_grid="crop")
    model = create_model(config=CONFIG, num_classes=2, spec=spec)
    model.config = config
    model.save(tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    assert b"private" not in content
    again = load_model(tmp_path / "model.safetensors")
    assert again.config is not None and str(again.config.pretrained_file) == "w.pth"
    assert again.spec is not None and (again.spec.name, again.spec.classes) == ("/road", ("../a", "~b"))
    assert str(again.spec.splits["train"].images) == "photos"
    assert str(again.spec.splits["val"].images) == "a/b"


@pytest.mark.parametrize(
    "value, public",
    [
        (Path("folder") / "w.pth", "w.pth"),
        ("/data/photos", "photos"),
        ("~/photos/", "photos"),
        ("..\\data\\photos", "photos"),
        ("C:\\data\\photos", "photos"),
        ("user/repo", "user/repo"),
        ("sky", "sky"),
        (".png", ".png"),
        ({"a": ["/x/y", 1, None]}, {"a": ["y", 1, None]}),
    ],
)
def test_only_the_last_part_of_a_path_is_published(value: Any, public: Any) -> None:
    assert without_folders(value) == public


# Loaders of others


def test_a_file_is_the_same_in_every_process(file: Path, tmp_path: Path) -> None:
    """The library writes the metadata in any order, which would make two files of one model differ."""
    model = load_model(file)
    model.extra = {"name": "Straße\n\u2028"}
    for count in range(12):
        model.save(tmp_path / f"{count}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    again = load_model(tmp_path / "0.safetensors")
    assert again.extra == model.extra
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_loaders_of_the_hub_read_it(file: Path, tmp_path: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["format"] == "pt"  # required by huggingface_hub, and by transformers
    expected = load_model(file).state_dict()
    state = load_state_dict_from_file(file)
    assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)
    older = rewrite(file, tmp_path)  # without the format
    with pytest.raises(OSError, match="does not contain the valid metadata"):
        load_state_dict_from_file(older)
    assert load_model(older).num_classes == 3


# Named on the command line


@pytest.mark.parametrize(
    "name, told",
    [
        ("good.SAFETENSORS", ""),
        ("good.model", ""),
        ("good", ""),
        ("folder", r"folder: it is a folder; give the file, such as .*best\.safetensors"),
        ("empty.pth", r"empty\.pth: an empty file"),
    ],
)
def test_info_takes_any_file_or_folder_for_a_model(
    name: str, told: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty.pth").touch()
    for copy in ("good.SAFETENSORS", "good.model", "good", "folder/best.safetensors"):
        Path(copy).write_bytes(file.read_bytes())
    if told:
        with pytest.raises(UserError, match=told):
            describe(name)
    else:
        assert describe(name).model.num_classes == 3
