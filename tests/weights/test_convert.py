"""Checkpoints of the paper's authors: read without running anything, sized by their tensors, equal in their scores."""

import argparse
import builtins
import collections
import datetime
import functools
import io
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import segvit
import segvit.weights.convert as convert_module
import segvit.weights.model_file as weights_module
from segvit.cli import main as cli
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.weights.convert import convert_checkpoint, read_settings
from segvit.weights.model_file import read_header
from segvit.weights.safe_pickle import Broken, Made, Refused, read_pickle
from segvit.weights.torch_file import read_state_dict
from tests.helpers.authors import SMALL, shapes_of, state_of

SAID: dict[str, Any] = {"num_heads": 4, "head_num_heads": 4, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
"""What the tensors of the golden checkpoints do not say, and the paper has no default for."""
FLAGS = ["--num-heads", "4", "--head-num-heads", "4", "--mean", "0", "0", "0", "--std", "1", "1", "1"]
LAYOUTS: dict[str, dict[str, Any]] = {
    "zip": {},
    "older": {"_use_new_zipfile_serialization": False},
    "zip, protocol 4": {"pickle_protocol": 4},
    "older, protocol 5": {"_use_new_zipfile_serialization": False, "pickle_protocol": 5},
}
"""Ways of torch.save."""


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Any
) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line."""
    monkeypatch.setattr("sys.argv", ["segvit", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as leave:
        code = int(leave.code or 0)
    return (code, *capsys.readouterr())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain checkpoint of the golden sizes."""
    path = tmp_path_factory.mktemp("authors") / "small.pth"
    torch.save({"meta": {"iter": 1}, "state_dict": state_of(**SMALL)}, path)
    return path


# The golden checkpoints


@pytest.mark.parametrize("name", ["atm", "atm_sparse", "shrunk"])
def test_golden_scores_and_labels(
    name: str,
    shared_golden: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "model.safetensors"
    code, out, err = command(monkeypatch, capsys, "convert", shared_golden / name / "checkpoint.pth", output, *FLAGS)
    assert code == 0 and not err and str(output) in out
    info = json.loads((shared_golden / name / "info.json").read_text())
    golden = load_file(shared_golden / name / "tensors.safetensors")
    model = segvit.load_model(output)
    assert model.backbone.taps == tuple(info["outs"]) and model.backbone.shrink_at == info.get("shrink")
    assert model.num_classes == info["ncls"] and model.config.image_size == info["img"] and model.spec is None
    scores = model.scores(golden["image"])
    assert (scores - golden["semseg"]).abs().max() <= 1e-5 * golden["semseg"].abs().max()
    best = golden["semseg"].topk(2, dim=1).values
    tied = best[:, 0] - best[:, 1] < 1e-6
    assert ((model.predict(golden["image"]) == golden["semseg"].argmax(1)) | tied).all() and tied.float().mean() < 0.01


@pytest.mark.parametrize("name, shrunk", [("atm", False), ("shrunk", True)])
def test_spelled_out_names_and_shapes_are_those_of_the_golden_files(
    name: str, shrunk: bool, shared_golden: Path
) -> None:
    state = read_state_dict(shared_golden / name / "checkpoint.pth")
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes_of(**SMALL, shrunk=shrunk)


def test_every_tensor_goes_where_its_name_says(small: Path, tmp_path: Path) -> None:
    """Numbers that differ per tensor, found again under our names."""
    state = read_state_dict(small)
    own = convert_checkpoint(small, tmp_path / "model.safetensors", **SAID).state_dict()
    for theirs, ours in {
        "backbone.patch_embed.projection.bias": "backbone.patch_embed.proj.bias",
        "backbone.layers.4.ln2.weight": "backbone.blocks.4.norm2.weight",
        "backbone.layers.5.attn.attn.in_proj_weight": "backbone.blocks.5.attn.qkv.weight",
        "backbone.layers.0.ffn.layers.1.bias": "backbone.blocks.0.mlp.fc2.bias",
        "decode_head.input_proj_1.weight": "head.stages.0.proj.weight",
        "decode_head.decoder_3.layers.2.multihead_attn.k.bias": "head.stages.2.layers.2.cross_attn.k.bias",
        "decode_head.decoder_2.layers.1.linear2.weight": "head.stages.1.layers.1.fc2.weight",
        "decode_head.class_embed.bias": "head.classifier.bias",
        "decode_head.q.weight": "head.class_tokens",
    }.items():
        assert torch.equal(own[ours], state[theirs]), ours


# Sizes, by the tensors alone

BASE: dict[str, Any] = {"embed_dim": 768, "depth": 12, "head_dim": 384}
LARGE: dict[str, Any] = {"embed_dim": 1024, "depth": 24, "head_dim": 512}
RELEASED: dict[str, tuple[dict[str, Any], int, int]] = {
    "ade_51.3": (BASE | {"grid": 32, "num_classes": 150}, 512, 108_734_743),
    "ade_54.6": (LARGE | {"grid": 40, "num_classes": 150}, 640, 344_303_255),
    "ade_shrunk_53.9": (LARGE | {"grid": 40, "num_classes": 150, "shrunk": True}, 640, 344_596_631),
    "COCOstuff_49.9": (LARGE | {"grid": 32, "num_classes": 171}, 512, 343_734_956),
    "COCOstuff10k_shrunk_49.1": (LARGE | {"grid": 32, "num_classes": 171, "shrunk": True}, 512, 343_733_420),
    "PC59cls_64.1": (LARGE | {"grid": 30, "num_classes": 59}, 480, 343_494_205 - 1025),
    "PC59cls_62.3": (LARGE | {"grid": 30, "num_classes": 59, "shrunk": True}, 480, 343_429_181 - 1025),
}
"""Sizes, crop and parameters of the paper's seven (with 60 classes there: one more token and row of 512 + 1)."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("ade_51.3", "ade_shrunk_53.9") else [pytest.mark.slow])
        for name in RELEASED
    ],
)
def test_released_checkpoints_need_no_option(name: str) -> None:
    given, crop, parameters = RELEASED[name]
    state = state_of(device="meta", **given)
    config, sizes = read_settings(state, Path(f"{name}.pth"))
    large, shrunk = given["depth"] == 24, given.get("shrunk", False)
    assert config.image_size == crop and sizes.num_classes == given["num_classes"]
    assert config.structure == ("shrunk" if shrunk else "plain")
    assert config.taps == ((7, 23) if shrunk else (7, 15, 23) if large else (5, 7, 11))
    assert config.shrink_at == (8 if shrunk else None)
    assert not shrunk or config.upsampling == "paper"
    assert (config.num_heads, config.head_num_heads) == ((16, 16) if large else (12, 12))
    assert config.mean == ((0.5, 0.5, 0.5) if large else (0.485, 0.456, 0.406))
    assert config.std == ((0.5, 0.5, 0.5) if large else (0.229, 0.224, 0.225))
    with torch.device("meta"):
        model = create_model(config=config, num_classes=sizes.num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    in_theirs = sum(value.numel() for key, value in state.items() if not key.endswith("empty_weight"))
    assert in_theirs == parameters + 2 * given["embed_dim"]


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 12, "layers": 1},
        {"head_dim": 64, "shrunk": True, "layers": 2},
        {"patch": 8, "grid": 5},
        {"embed_dim": 128, "head_dim": 96, "num_classes": 1},
        {"depth": 1, "stages": 1},
        {"stages": 1, "num_classes": 59},
    ],
    ids=str,
)
def test_any_sizes_are_read(changes: dict[str, Any]) -> None:
    given = {**SMALL, **changes}
    config, sizes = read_settings(state_of(device="meta", **given), Path("x.pth"), **SAID)
    layers, shrunk = given.get("layers", 3), given.get("shrunk", False)
    assert config.head_num_layers == layers and (not shrunk or config.upsampling_num_layers == layers)
    assert (config.embed_dim, config.depth) == (given["embed_dim"], given["depth"])
    assert (config.head_dim or given["embed_dim"] // 2) == given["head_dim"]
    assert config.image_size == given["grid"] * given.get("patch", 16) and sizes.num_classes == given["num_classes"]
    assert config.taps is not None and len(config.taps) == sizes.num_stages
    assert config.taps[-1] == given["depth"] - 1


@pytest.mark.parametrize(
    "num_classes, grid, spec, protocol",
    [
        (59, 30, "pascal_context_59", {"resize_short": 520, "resize_short_min": 480, "stride": 320}),
        (60, 30, "pascal_context_60", {"resize_short": 520, "resize_short_min": 480, "stride": 320}),
        (150, 32, "ade20k", {"resize_long": 2048, "resize_short": 512, "stride": 341}),
        (150, 40, "ade20k", {"resize_long": 2048, "resize_short": 640, "stride": 608}),
        (171, 32, "coco_stuff_10k", {"resize_short": 512, "resize_short_min": 512, "stride": 341}),
        (171, 4, "coco_stuff_10k", {"resize_short": 512, "resize_short_min": 512, "stride": None}),
        (100, 4, None, {}),
    ],
)
def test_classes_and_protocol_of_the_papers_datasets(
    num_classes: int, grid: int, spec: str | None, protocol: dict[str, Any], tmp_path: Path
) -> None:
    sizes = {**SMALL, "depth": 1, "stages": 1, "layers": 1, "num_classes": num_classes, "grid": grid}
    torch.save({"state_dict": state_of(**sizes)}, tmp_path / "x.pth")
    convert_checkpoint(tmp_path / "x.pth", tmp_path / "model.safetensors", **SAID)
    model = segvit.load_model(tmp_path / "model.safetensors")
    if spec is None:
        assert model.spec is None and model.protocol == segvit.EvalConfig()
    else:
        expected = segvit.load_spec(spec)
        assert model.spec is not None and model.spec.classes == expected.classes
        assert model.spec.palette == expected.palette
        assert {key: getattr(model.protocol, key) for key in protocol} == protocol


# What the tensors do not say


def test_options_without_a_default_are_named_all_at_once(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = command(monkeypatch, capsys, "convert", small, tmp_path / "model.safetensors")
    assert code == 2
    for option in ("--num-heads N", "--head-num-heads N", "--mean R G B", "--std R G B", "width 48", "width 24"):
        assert option in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "sizes, options, message",
    [
        ({}, {"num_heads": 5}, "--num-heads 5: the width 48"),
        ({}, {"head_num_heads": 7}, "--head-num-heads 7: the width 24"),
        ({}, {"num_heads": 0}, "--num-heads 0"),
        ({}, {"std": (1.0, 0.0, 1.0)}, "--std"),
        ({}, {"mean": (1.0, 1.0)}, "--mean"),
        ({}, {"mean": (float("nan"), 0.0, 0.0)}, "--mean.*0..1 scale"),
        ({}, {"std": (1.0, 1.0, float("inf"))}, "--std.*0..1 scale"),
        ({}, {"mean": (123.675, 116.28, 103.53)}, "--mean.*divide by 255"),
        ({}, {"std": (58.395, 57.12, 57.375)}, "--std.*divide by 255"),
        ({}, {"taps": ()}, r"reads 3 of 6 blocks.*\(\).*--taps and 3"),
        ({"stages": 2}, {}, "reads 2 of 6 blocks.*--taps and 2 block numbers from 0 to 5"),
        ({}, {"taps": (1, 5)}, "reads 3 of 6 blocks.*--taps and 3"),
        ({}, {"taps": (1, 5, 6)}, "--taps.*from 0 to 5"),
        ({}, {"taps": (5, 3, 1)}, "--taps.*ascending"),
        ({"shrunk": True}, {"shrink_at": 5}, "--shrink-at.*shrink at blocks 1 to 4"),
        ({}, {"shrink_at": 2}, "--taps"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_named(sizes: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"(?s)x.pth.*{message}|^{message}"):
        read_settings(state_of(device="meta", **{**SMALL, **sizes}), Path("x.pth"), **{**SAID, **options})


def test_options_are_kept() -> None:
    shrunk = state_of(device="meta", **SMALL, shrunk=True)
    config, _ = read_settings(shrunk, Path("x.pth"), **{**SAID, "num_heads": 6, "shrink_at": 3})
    assert (config.num_heads, config.shrink_at, config.taps) == (6, 3, (2, 5))
    early, _ = read_settings(state_of(device="meta", **SMALL), Path("x.pth"), **SAID, taps=(0, 1, 3))
    assert early.taps == (0, 1, 3)  # blocks 4 and 5 of the file are not needed
    naive, _ = read_settings(state_of(device="meta", **SMALL, stages=1), Path("x.pth"), **SAID, shrink_at=2)
    assert (naive.structure, naive.shrink_at, naive.taps) == ("naive_shrunk", 2, (5,))


# Damage is a table


@pytest.mark.parametrize(
    "shrunk, every",
    [(False, 5), pytest.param(False, 1, marks=pytest.mark.slow), pytest.param(True, 1, marks=pytest.mark.slow)],
)
def test_every_tensor_that_is_lost_renamed_or_reshaped_is_told(
    shrunk: bool, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = functools.cache(create_model)  # else built anew for each of 700 cases
    monkeypatch.setattr(convert_module, "create_model", once)
    state = state_of(device="meta", **{**SMALL, "depth": 3, "layers": 2}, shrunk=shrunk)
    whole, _ = read_settings(state, Path("x.pth"), **SAID)
    for name, value in list(state.items())[::every]:
        rest = {key: tensor for key, tensor in state.items() if key != name}
        cases = [
            ({**rest, f"{name}_x": value}, f"unexpected  {name}_x {tuple(value.shape)}"),
            ({**rest, name: value.new_empty((*value.shape, 2))}, f"mis-shaped  {name}: {(*value.shape, 2)} in the"),
            ({**rest, name: value.new_empty(len(value) + 1)}, f"mis-shaped  {name}: {(len(value) + 1,)} in the"),
        ]
        if not name.endswith("empty_weight"):
            cases.append((rest, f"missing     {name} "))
        for changed, row in cases:
            with pytest.raises(UserError) as caught:
                read_settings(changed, Path("x.pth"), **SAID)
            assert row in str(caught.value), name
    assert read_settings(state, Path("x.pth"), **SAID)[0] == whole


def test_a_table_and_exit_code_2(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_state_dict(small)
    state["decode_head.decoder_2.layers.0.norm9.bias"] = state.pop("decode_head.decoder_2.layers.0.norm2.bias")
    del state["backbone.layers.3.ln1.weight"]
    state["decode_head.q.weight"] = torch.zeros(24, 7)
    torch.save({"state_dict": state}, tmp_path / "damaged.pth")
    output = tmp_path / "model.safetensors"
    output.write_bytes(b"the old one")
    code, _, err = command(monkeypatch, capsys, "convert", tmp_path / "damaged.pth", output, *FLAGS)
    assert code == 2 and "Traceback" not in err
    rows = [" ".join(row.split()) for row in err.splitlines()]
    assert "6 blocks of width 48 and 7 classes" in rows[0]
    assert rows[1:] == [
        "missing backbone.layers.3.ln1.weight (48,)",
        "missing decode_head.decoder_2.layers.0.norm2.bias (24,)",
        "unexpected decode_head.decoder_2.layers.0.norm9.bias (24,)",
        "mis-shaped decode_head.q.weight: (24, 7) in the file, (7, 24) by all the others",
    ]
    assert output.read_bytes() == b"the old one"


# Nothing is ever run


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call

    def __call__(self) -> None:
        """A pickle can call what a call gave."""


class Attribute:
    """Pickled as a class with a state that its `__setstate__` would act on."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["path"]).touch()


def touch(path: str) -> None:
    """A function of somebody's module."""
    Path(path).touch()


TRAPS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda path: Call(os.system, f"touch '{path}'"),
    "eval": lambda path: Call(builtins.eval, f"open({path!r}, 'w').close()"),
    "exec": lambda path: Call(builtins.exec, f"open({path!r}, 'w').close()"),
    "open": lambda path: Call(open, path, "w"),
    "a method by getattr": lambda path: Call(Path.touch, Path(path)),
    "getattr of a module": lambda path: Call(Call(builtins.getattr, Call(builtins.__import__, "os"), "system"), path),
    "subprocess.Popen": lambda path: Call(subprocess.Popen, ["touch", path]),
    "a function of a module": lambda path: Call(touch, path),
    "torch.hub": lambda path: Call(torch.hub.download_url_to_file, "file:///dev/null", path),
    "numpy.save": lambda path: Call(np.save, path, 1),
    "a pickle in a pickle": lambda path: Call(pickle.loads, pickle.dumps(Call(touch, path))),
    "torch.load in storage": lambda path: Call(torch.storage._load_from_bytes, b""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TRAPS)
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(name: str, layout: str, tmp_path: Path) -> None:
    sprung, path, output = tmp_path / "sprung", tmp_path / "trap.pth", tmp_path / "model.safetensors"
    trap, state = TRAPS[name](str(sprung)), state_of(**SMALL)
    places: list[Any] = [
        trap,
        {"meta": {"config": {"deep": [1, (2, trap)]}}, "state_dict": state},
        {"state_dict": {**state, "backbone.cls_token": trap}},
        {"state_dict": state, "optimizer": {trap: 1} if layout == "zip" else trap},
    ]
    for content in places:
        torch.save(content, path, **LAYOUTS[layout])
        with pytest.raises(UserError, match=r"trap\.pth: refused, nothing of it was run"):
            segvit.convert_checkpoint(path, output, **SAID)
        assert not sprung.exists() and not output.exists()


@pytest.mark.parametrize("name", ["os.system", "eval", "a method by getattr", "a function of a module"])
def test_the_traps_do_work_in_a_reader_that_trusts_them(name: str, tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "trap.pth"
    torch.save({"meta": TRAPS[name](str(sprung))}, path)
    torch.load(path, weights_only=False)
    assert sprung.exists()


@pytest.mark.parametrize("program", [b"cos\nsystem\n(S'touch sprung'\ntR.", b"(S'touch sprung'\nios\nsystem\n."])
def test_pickles_of_the_oldest_protocol_run_nothing(
    program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.pth").write_bytes(program)
    Path("begun.pth").write_bytes(b"\x80\x02" + program)
    with zipfile.ZipFile("packed.pth", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    for path, reason in (
        ("plain.pth", "not a file of torch.save"),
        ("begun.pth", "refused"),
        ("packed.pth", "refused"),
    ):
        with pytest.raises(UserError, match=reason):
            segvit.convert_checkpoint(path, "model.safetensors")
    assert not Path("sprung").exists()
    pickle.loads(program)
    assert Path("sprung").exists()  # the trap does work


class Config(dict[str, Any]):
    """A mapping of somebody's library."""


class Bag(list[Any]):
    """A list of somebody's library."""


def harmless(sprung: Path) -> dict[str, Any]:
    return {
        "config": Config(model=Config(type="x"), seed=None),
        "bag": Bag([1, Bag([2])]),
        "object": Attribute(str(sprung)),
        "groups": collections.defaultdict(list, {"a": [1]}),
        "ordered": collections.OrderedDict(a=1),
        "when": datetime.datetime(2022, 10, 11),
        "score": np.float64(54.6),
        "palette": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "arguments": argparse.Namespace(a=1),
        "path": Path("work_dirs") / "x",
        "sets": [{1, 2}, frozenset([3])],
        "plain": [b"bytes", 10**30, -1, 1.5, True, None, 3j, (1, 2, 3, 4), "ü"],
        "torch": [torch.float32, torch.device("cpu"), torch.Size([1, 2])],
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_harmless_objects_do_not_matter(layout: str, tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "x.pth"
    state = state_of(**SMALL)
    torch.save({"meta": harmless(sprung), "state_dict": state}, path, **LAYOUTS[layout])
    model = segvit.convert_checkpoint(path, tmp_path / "model.safetensors", **SAID)
    assert not sprung.exists()
    assert torch.equal(model.head.class_tokens, state["decode_head.q.weight"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_are_those_of_torch(layout: str, tmp_path: Path) -> None:
    base, path = torch.arange(20.0).reshape(4, 5), tmp_path / "x.pth"
    state: dict[str, Any] = collections.OrderedDict(
        whole=torch.randn(3, 4),
        parameter=torch.nn.Parameter(torch.ones(2).half()),
        view=base[1:3, 1:4],
        turned=base.t(),
        empty=torch.empty(0, 3),
        number=torch.tensor(5),
        flags=torch.tensor([True, False]),
        double=torch.randn(2, dtype=torch.float64),
    )
    state._metadata = {"version": 1}  # type: ignore[attr-defined]
    for content in (state, {"state_dict": state, "optimizer": {"state": {0: {"step": 3, "mean": torch.ones(9)}}}}):
        torch.save(content, path, **LAYOUTS[layout])
        read = read_state_dict(path)
        assert list(read) == list(state)
        for name, value in read.items():
            assert value.dtype == state[name].dtype and torch.equal(value, state[name]), name


AUDITED: list[str] | None = None
"""Names of the audit events since somebody began to listen; None: nobody does."""


def listen(event: str, _: tuple[Any, ...]) -> None:
    """Note an import, a file opened, a program run: Python reports each to its audit hooks."""
    if AUDITED is not None:
        AUDITED.append(event)


@pytest.fixture(scope="module")
def hook() -> None:
    """Install the audit hook, which Python never removes; load the codec of protocol 0 first, which is an import."""
    "".encode("raw-unicode-escape")
    sys.addaudithook(listen)


@pytest.mark.usefixtures("hook")
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", ["harmless", *TRAPS])
def test_reading_a_pickle_imports_opens_and_runs_nothing(
    name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = harmless(tmp_path) if name == "harmless" else TRAPS[name](str(tmp_path / "sprung"))
    program = io.BytesIO(pickle.dumps(content, protocol))
    events: list[str] = []
    refused = False
    monkeypatch.setattr(sys.modules[__name__], "AUDITED", events)
    try:
        read_pickle(program, Path("x.pth"))
    except Refused:
        refused = True
    monkeypatch.undo()
    assert not events
    assert refused is (name != "harmless")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02N" + pickle.LONG_BINPUT + b"\xff\xff\xff\x0f.",
        b"\x80\x05" + pickle.BYTEARRAY8 + struct.pack("<Q", 2**38) + b".",
        b"\x80\x05" + pickle.BINBYTES8 + struct.pack("<Q", 2**38) + b".",
        b"\x80\x04" + pickle.FRAME + struct.pack("<Q", 2**38) + b"N.",
    ],
    ids=["a far place in the memo", "a long bytearray", "long bytes", "a long frame"],
)
def test_a_few_bytes_cannot_ask_for_gigabytes(program: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"cut short or damaged|not weights by name"):
        read_state_dict(tmp_path / "bomb.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_extension_codes_and_calls_of_results_are_refused() -> None:
    with pytest.raises(Broken, match="extension code 7"):
        read_pickle(io.BytesIO(b"\x80\x02" + pickle.EXT1 + b"\x07."), Path("x.pth"))
    for call in (b"(tR.", b"(tR(tR."):
        program = io.BytesIO(b"\x80\x02cmmcv\nConfig\n" + call)
        if call.count(pickle.REDUCE) == 1:
            made, _ = read_pickle(program, Path("x.pth"))
            assert isinstance(made, Made) and made.by == "mmcv.Config"
        else:
            with pytest.raises(Refused, match="the result of another call"):
                read_pickle(program, Path("x.pth"))


def test_strings_and_byte_arrays_of_any_python_are_read() -> None:
    for program, content in ((b"U\x02\xff\x00.", "\xff\0"), (pickle.dumps(bytearray(b"ab"), 5), b"ab")):
        assert read_pickle(io.BytesIO(program), Path("x.pth"))[0] == content


def test_the_optimizer_is_not_even_read(tmp_path: Path) -> None:
    state = {"backbone.x": torch.ones(3)}
    torch.save({"state_dict": state, "optimizer": {"mean": torch.ones(99)}}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "part.pth", "w") as part:
        for name in whole.namelist():
            if len(whole.read(name)) != 99 * 4:
                part.writestr(name, whole.read(name))
    assert torch.equal(read_state_dict(tmp_path / "part.pth")["backbone.x"], state["backbone.x"])


# What is no checkpoint


def write(kind: str, path: Path, whole: bytes) -> None:
    texts = {
        "web page": "<!DOCTYPE html><html><body>404</body></html>",
        "web page in small letters": "\n <html lang=en>",
        "web page with a byte order mark": "\ufeff<!DOCTYPE html>",
        "web page that begins with a remark": "<!-- saved --><html>",
        "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
        "message": "Invalid username or password.",
        "lines": '{"error": "not found"}\n{}\n',
    }
    if kind in texts:
        path.write_text(texts[kind])
    elif kind == "empty":
        path.touch()
    elif kind == "safetensors":
        weights_module.save_file({"a": torch.ones(1)}, path)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl.txt", "x")
    elif kind == "script":
        torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))
    elif kind == "module":
        torch.save(torch.nn.Linear(1, 1), path)
    elif kind == "list":
        torch.save([torch.ones(1)], path)
    elif kind == "run":
        torch.save({"config": {}, "step": 3, "model": {"a": torch.ones(1)}}, path)
    elif kind == "backbone":
        torch.save({"blocks.0.norm1.weight": torch.ones(3)}, path)
    elif kind == "other numbers":
        torch.save({"state_dict": {"a": torch.ones(1), "epoch": 3}}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": 3}))
    else:
        assert kind == "broken in the middle"
        path.write_bytes(whole[: len(whole) // 2] + b"\xff" + whole[len(whole) // 2 + 1 :])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "kind, reason",
    [
        ("empty", r"an empty file \(0 bytes\)"),
        ("web page", "a web page instead of weights"),
        ("web page in small letters", "a web page instead of weights"),
        ("web page with a byte order mark", "a web page instead of weights"),
        ("web page that begins with a remark", "a web page instead of weights"),
        ("lines", r"""begins with '{"error": "not found"}'"""),
        ("pointer", "pointer of git lfs.*git lfs pull"),
        ("message", "begins with 'Invalid username or password.'"),
        ("safetensors", "a safetensors file.*needs no conversion"),
        ("zip", "a zip file, but not of torch.save"),
        ("script", "a TorchScript program"),
        ("module", r"a pickled torch.nn.modules.linear.Linear, not weights.*state_dict\(\)"),
        ("list", "holds a list"),
        ("run", "no `state_dict` in it, only 'config', 'step', 'model'"),
        ("backbone", "not of SegViT.*blocks.0.norm1.weight"),
        ("other numbers", "epoch is not a plain tensor"),
        ("pickle", "a pickle, but not of torch.save"),
        ("broken in the middle", "damaged.*fetch it again"),
    ],
)
def test_what_is_no_checkpoint_is_told(kind: str, reason: str, small: Path, tmp_path: Path) -> None:
    path, output = tmp_path / "given.pth", tmp_path / "model.safetensors"
    write(kind, path, small.read_bytes())
    with pytest.raises(UserError, match=rf"(?s)given\.pth: .*{reason}"):
        segvit.convert_checkpoint(path, output)
    assert not output.exists()


@pytest.mark.parametrize("layout", ["zip", "older"])
def test_a_file_that_was_cut_short_is_told(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"state_dict": {"backbone.a": torch.randn(99), "b": torch.randn(99)}}, path, **LAYOUTS[layout])
    whole = path.read_bytes()
    assert len(read_state_dict(path)) == 2
    for size in (3, 50, len(whole) // 2, len(whole) - 300, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=rf"cut\.pth: cut short or damaged.*{size:,} bytes\): fetch it again"):
            read_state_dict(path)


def test_noise_in_a_file_is_an_error_or_nothing(tmp_path: Path) -> None:
    """Bytes changed at random: never another exception than ours."""
    path, draw = tmp_path / "noise.pth", random.Random(0)
    torch.save({"meta": {"a": [1, "b"]}, "state_dict": {"backbone.a": torch.randn(3)}}, path, **LAYOUTS["older"])
    whole, refused = path.read_bytes(), 0
    for _ in range(500):
        changed = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            read_state_dict(path)
        except UserError:
            refused += 1
    assert 150 < refused < 500


def test_missing_files_and_bad_outputs_are_told(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint file .*none\.pth"):
        convert_checkpoint(tmp_path / "none.pth", tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"out\.pth: a model file ends in \.safetensors; give .*out\.safetensors"):
        convert_checkpoint(small, tmp_path / "out.pth")
    (tmp_path / "file").touch()
    (tmp_path / "taken.safetensors").mkdir()
    for output in ("file/model.safetensors", "taken.safetensors"):
        with pytest.raises(UserError, match=rf"{output}: cannot be written"):
            convert_checkpoint(small, tmp_path / output, **SAID)


def test_numbers_that_are_none_are_told(tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in state_of(**SMALL).items()}
    state["decode_head.q.weight"][3, 2] = float("nan")
    state["backbone.layers.4.ln1.bias"][0] = float("inf")
    torch.save({"state_dict": state}, tmp_path / "diverged.pth")
    with pytest.raises(
        UserError, match=r"diverged\.pth: .*NaN.*backbone\.layers\.4\.ln1\.bias, decode_head\.q\.weight"
    ):
        convert_checkpoint(tmp_path / "diverged.pth", tmp_path / "model.safetensors", **SAID)
    assert not (tmp_path / "model.safetensors").exists()


def test_an_old_model_is_replaced_whole_or_not_at_all(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model.safetensors"
    output.write_bytes(b"the old one")

    def break_off(_: Any, to: Path, **__: Any) -> None:
        Path(to).write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(weights_module, "save_file", break_off)
        with pytest.raises(UserError, match=r"cannot be written \(disk full\)"):
            convert_checkpoint(small, output, **SAID)
    assert output.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [output]
    convert_checkpoint(small, output, **SAID)
    assert read_header(output)["converted_from"] == "small.pth"


def test_a_converted_model_is_saved_again_byte_for_byte(small: Path, tmp_path: Path) -> None:
    model = convert_checkpoint(small, tmp_path / "first.safetensors", **SAID)
    model.save(tmp_path / "second.safetensors")
    segvit.load_model(tmp_path / "first.safetensors").save(tmp_path / "third.safetensors")
    first = (tmp_path / "first.safetensors").read_bytes()
    assert first == (tmp_path / "second.safetensors").read_bytes() == (tmp_path / "third.safetensors").read_bytes()


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state: dict[str, Tensor] = {name: value.half() for name, value in state_of(**SMALL).items()}
    torch.save({"state_dict": state}, tmp_path / "half.pth")
    model = convert_checkpoint(tmp_path / "half.pth", tmp_path / "model.safetensors", **SAID)
    assert model.head.class_tokens.dtype == torch.float32
    assert torch.equal(model.head.class_tokens, state["decode_head.q.weight"].float())
