"""Models from and to the Hub, and the zoo, against a stand-in on this machine; a file as the whole of a model."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image

import segvit
from segvit.cli import main as cli
from segvit.config import DataConfig, EvalConfig, ModelConfig, OptimConfig, TrainConfig
from segvit.data.shapes.scenes import write_shapes
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.models.create import create_model
from segvit.training.train import train
from segvit.utils.files import cache_folder
from segvit.weights.card import model_card
from segvit.weights.hub import MODEL_FILE
from segvit.weights.load import ZOO_REPOSITORY, find_model
from segvit.weights.model_file import read_header
from segvit.weights.names import RELEASED, is_model_name
from tests.helpers.authors import state_of
from tests.helpers.exports import tiny, with_added_classes
from tests.helpers.hub_server import Hub, serving

ROOT = Path(__file__).resolve().parents[2]
TINY = ModelConfig(backbone="vit_tiny_patch16_224", image_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
TINY = replace(TINY, head_num_layers=1)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in in place of the Hub, with empty caches."""
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between tries without a network
        monkeypatch.setenv("SEGVIT_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with metrics in its header."""
    root = tmp_path_factory.mktemp("trained")
    write_shapes(root / "scenes", train=4, val=2, size=32)
    config = TrainConfig(
        model=TINY,
        data=DataConfig(spec="shapes", root=root / "scenes", workers=0),
        optim=OptimConfig(lr=3e-3, warmup_steps=0),
        eval=EvalConfig(mode="whole"),
        steps=30,
        batch_size=4,
        eval_every=30,
        device="cpu",
        output=root / "run",
    )
    return train(config).path


def fresh(hub: Hub, folder: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with empty caches."""
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(folder / "home"),
        "SEGVIT_CACHE": str(folder / "segvit"),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, "-m", "segvit.cli.main", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True)


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Any
) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line."""
    monkeypatch.setattr("sys.argv", ["segvit", *map(str, arguments)])
    capsys.readouterr()
    code = 0
    try:
        cli.main()
    except SystemExit as leave:
        code = int(leave.code or 0)
    return (code, *capsys.readouterr())


# To the Hub and back


@pytest.mark.slow
def test_train_push_and_predict_in_a_fresh_process(hub: Hub, trained: Path, tmp_path: Path) -> None:
    model = segvit.load_model(trained)
    assert model.push_to_hub("somebody/tiny-shapes") == f"{hub.address}/somebody/tiny-shapes"
    assert hub.files("somebody/tiny-shapes")[MODEL_FILE] == trained.read_bytes()
    card = hub.files("somebody/tiny-shapes")["README.md"].decode()
    assert card == model_card(read_header(trained), repo="somebody/tiny-shapes")

    photo = tmp_path / "photo.png"
    tile = np.kron(np.random.default_rng(0).integers(0, 256, (5, 7, 3)), np.ones((8, 8, 1)))
    Image.fromarray(tile.astype(np.uint8)).save(photo)
    done = fresh(hub, tmp_path, "predict", "somebody/tiny-shapes", photo, "--output", tmp_path / "seen")
    assert done.returncode == 0, done.stderr
    (labels,) = (file for file in (tmp_path / "seen").rglob("*.png") if Image.open(file).mode == "P")
    expected = segvit.predict(model, photo).labels
    assert np.array_equal(np.asarray(Image.open(labels)), np.asarray(expected))
    assert len(np.unique(np.asarray(expected))) > 1


def test_the_verb_pushes_and_info_reads(
    hub: Hub, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(monkeypatch, capsys, "push", trained, "somebody/other", "--private")
    assert code == 0 and out.strip() == f"{hub.address}/somebody/other" and hub.private == {"somebody/other"}
    code, out, err = command(monkeypatch, capsys, "info", "somebody/other", "--json", "-")
    assert code == 0, err
    told = json.loads(out)
    assert told["metrics"] == read_header(trained)["metrics"] and told["embed_dim"] == 32


def test_revisions(hub: Hub, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = (create_model(config=TINY, num_classes=count) for count in (3, 4))
    first.push_to_hub("somebody/x")
    (commit,) = hub.repositories["somebody/x"]
    second.push_to_hub("somebody/x")
    assert segvit.load_model("somebody/x").num_classes == 4
    assert segvit.load_model(f"somebody/x@{commit}").num_classes == 3
    assert segvit.load_model(Path("somebody/x@main")).num_classes == 4


def test_what_the_hub_lacks_is_told(hub: Hub) -> None:
    hub.commit("somebody/else", {"pytorch_model.bin": b"x"})
    for name, reason in {
        "nobody/nothing": (
            "no model file nobody/nothing, and no such model can be downloaded.*no such repository, or a private one.*"
            "hf auth login"
        ),
        "somebody/else": "it has no model.safetensors, so it is not a model of segvit",
        "somebody/else@v9": "no branch, tag or commit 'v9'",
    }.items():
        with pytest.raises(UserError, match=f"(?s){reason}"):
            segvit.load_model(name)


def test_what_the_hub_refuses_is_told(hub: Hub) -> None:
    model = create_model(config=TINY, num_classes=3)
    with pytest.raises(UserError, match=r"'somebody' is not a repository.*user/repo"):
        model.push_to_hub("somebody")
    hub.read_only = True
    with pytest.raises(UserError, match=r"(?s)somebody/x: the Hugging Face Hub refuses the model.*hf auth login"):
        model.push_to_hub("somebody/x")
    assert not hub.repositories


def test_a_model_that_was_fetched_loads_offline(hub: Hub) -> None:
    create_model(config=TINY, num_classes=3).push_to_hub("somebody/x")
    segvit.load_model("somebody/x")
    hub.shutdown()
    hub.server_close()
    assert segvit.load_model("somebody/x").num_classes == 3
    with pytest.raises(
        UserError, match=r"(?s)no connection.*HF_HUB_OFFLINE=1.*Offline: download model.safetensors of some"
    ):
        segvit.load_model("somebody/y")


# Names


@pytest.mark.parametrize(
    "name, message",
    [
        ("none.safetensors", r"no model file none.safetensors: give .*user/repo.*segvit-base-ade20k"),
        ("folder/none.safetensors", "no model file folder/none.safetensors"),
        ("some/where/none", "no model file some/where/none"),
        ("segvit-large-ade", r"no model file segvit-large-ade.*did you mean 'segvit-large-ade20k'\?"),
        ("run", r"no model file run: it is a folder; give the file, such as run/best.safetensors"),
    ],
)
def test_names_that_are_none_are_told_without_the_hub(
    name: str, message: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").touch()
    with pytest.raises(UserError, match=f"(?s){message}"):
        segvit.load_model(name)
    assert not hub.requests


def test_a_file_comes_before_the_hub(hub: Hub, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "x").write_bytes(trained.read_bytes())
    assert segvit.load_model("somebody/x").num_classes == segvit.load_spec("shapes").num_classes
    assert not hub.requests


# The zoo


def released(folder: Path) -> bytes:
    """A file as small as one can be that needs no option: one block of the width of Base, 150 classes."""
    sizes = {"embed_dim": 768, "depth": 1, "head_dim": 384, "num_classes": 150, "grid": 32, "stages": 1, "layers": 1}
    torch.save({"meta": {}, "state_dict": state_of(**sizes), "optimizer": {}}, folder / "made.pth")
    return (folder / "made.pth").read_bytes()


def test_a_name_of_the_zoo_is_fetched_converted_and_kept(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.commit(ZOO_REPOSITORY, {RELEASED["segvit-base-ade20k"]: released(tmp_path)})
    model = segvit.load_model("segvit-base-ade20k")
    assert "ade_51.3.pth" in (said := capsys.readouterr().err) and "academic use only" in said
    assert model.spec is not None and model.spec.name == "ade20k" and model.protocol.stride == 341
    asked, kept = len(hub.requests), tmp_path / "cache" / "segvit-base-ade20k.safetensors"
    assert asked and find_model("segvit-base-ade20k") == kept and list(kept.parent.iterdir()) == [kept]
    again = segvit.load_model("segvit-base-ade20k")
    assert len(hub.requests) == asked and torch.equal(again.head.class_tokens, model.head.class_tokens)
    assert "academic use only" in read_header(kept)["licence"] and "academic" in model_card(
        read_header(kept), repo="a/b"
    )
    code, out, _ = command(monkeypatch, capsys, "info", "segvit-base-ade20k")
    assert code == 0 and "academic use only" in out and "ade_51.3.pth" in out


def test_the_zoo_offline_says_what_to_do_and_takes_what_is_put_there(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, folder = released(tmp_path), tmp_path / "cache"
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    hub.shutdown()
    hub.server_close()
    code, _, err = command(
        monkeypatch, capsys, "predict", "segvit-base-ade20k", tmp_path, "--output", tmp_path / "seen", "--device", "cpu"
    )
    assert code == 2 and "Traceback" not in err
    for part in (
        "no connection",
        "ade_51.3.pth",
        "https://huggingface.co/Akide/SegViTv1",
        "academic use only",
        f"put it into {folder}",
        "segvit convert ade_51.3.pth segvit-base-ade20k.safetensors",
    ):
        assert part in err
    folder.mkdir()
    (folder / "ade_51.3.pth").write_bytes(content)
    assert segvit.load_model("segvit-base-ade20k").num_classes == 150


def test_a_released_file_converted_by_hand_keeps_its_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ade_51.3.pth").write_bytes(released(tmp_path))
    output = tmp_path / "model.safetensors"
    code, out, _ = command(monkeypatch, capsys, "convert", tmp_path / "ade_51.3.pth", output)
    assert code == 0 and "licence academic use only" in out
    assert "academic use only" in segvit.load_model(output).extra["licence"]
    code, out, _ = command(monkeypatch, capsys, "convert", tmp_path / "made.pth", output)
    assert code == 0 and "licence" not in out and "licence" not in segvit.load_model(output).extra


def test_a_zoo_file_that_is_no_checkpoint_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.commit(ZOO_REPOSITORY, {RELEASED["segvit-base-ade20k"]: b"<html>sorry</html>"})
    with pytest.raises(UserError, match="a web page instead of weights"):
        segvit.load_model("segvit-base-ade20k")
    assert not list((tmp_path / "cache").iterdir())


def test_the_zoo_is_the_seven_of_the_paper() -> None:
    assert len(RELEASED) == len(set(RELEASED.values())) == 7
    assert all(file.endswith(".pth") for file in RELEASED.values())
    assert all(is_model_name(name) for name in RELEASED)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SEGVIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, place in (("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")):
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == tmp_path / place / "segvit"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "segvit"
    monkeypatch.setenv("SEGVIT_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


# One file is a model


def test_saved_loaded_saved_is_the_same_to_the_byte(trained: Path, tmp_path: Path) -> None:
    model = segvit.load_model(trained)
    assert model.extra.keys() >= {"metrics", "step", "train"} and model.extra["metrics"]["images"] == 2
    model.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == trained.read_bytes()


def test_what_a_model_began_as_survives(tmp_path: Path) -> None:
    model = create_model(config=TINY, num_classes=3)
    model.config = replace(
        TINY, pretrained=True, position_grid="crop"
    )  # as a run leaves it that began with timm's weights
    model.extra = {"starts_from": "timm x (licence y)", "licence": "y", "mine": [1, {"a": None}]}
    model.save(tmp_path / "first.safetensors")
    loaded = segvit.load_model(tmp_path / "first.safetensors")
    assert loaded.config.pretrained and loaded.extra == model.extra
    loaded.save(tmp_path / "second.safetensors")
    assert (tmp_path / "first.safetensors").read_bytes() == (tmp_path / "second.safetensors").read_bytes()


def test_info_shows_the_metrics(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(monkeypatch, capsys, "info", trained)
    assert code == 0 and f"{read_header(trained)['metrics']['miou']:.4f} (2 images)" in out


# The card


def test_the_card_tells_what_the_header_knows(trained: Path) -> None:
    header = read_header(trained)
    origin = {"starts_from": "timm x", "licence": "apache-2.0", "base_model": "timm/x"}
    card = model_card(header | origin, repo="somebody/tiny")
    front = yaml.safe_load(card.split("---")[1])
    metrics, classes = header["metrics"], [item["name"] for item in header["spec"]["classes"]]
    assert front["library_name"] == "segvit" and front["pipeline_tag"] == "image-segmentation"
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(100 * metrics["miou"], abs=0.005)
    assert f"| mIoU | {100 * metrics['miou']:.2f} |" in card and "on 2 validation images" in card
    for index, name in enumerate(classes):
        iou = metrics["iou"][index]
        assert f"| {index} | {name} | {'' if iou is None else f'{100 * iou:.2f}'} |" in card
    assert 'segvit.load_model("somebody/tiny")' in card and "| mode | whole |" in card
    assert "Training started from timm x, whose licence is apache-2.0" in card


def test_the_card_names_added_groups(tmp_path: Path) -> None:
    whole, plain = with_added_classes(tiny()), tiny()
    whole.extra, plain.extra = {}, {}
    whole.save(tmp_path / "whole.safetensors")
    card = model_card(read_header(tmp_path / "whole.safetensors"), repo="somebody/x")
    first = ", ".join(load_spec("shapes").classes)
    assert f"| groups of classes | 0 ({first}); 1 (cone, dog); 2 (bin) |" in card and "| 10 | bin |" in card
    plain.save(tmp_path / "plain.safetensors")
    assert "groups of classes" not in model_card(read_header(tmp_path / "plain.safetensors"), repo="somebody/x")


def test_the_card_of_a_model_without_names_or_scores(tmp_path: Path) -> None:
    create_model(config=TINY, num_classes=3).save(tmp_path / "model.safetensors")
    card = model_card(read_header(tmp_path / "model.safetensors"), repo="somebody/x")
    assert "The model's file holds none" in card and "3, whose names are not known" in card
    assert "model-index" not in card and "The model's file does not state it" in card
    assert "license" not in card and "base_model" not in card


@pytest.mark.parametrize(
    "origin, front, text",
    [
        (
            {"starts_from": "timm x (licence mit)", "licence": "mit", "base_model": "timm/x"},
            {"license": "mit", "base_model": "timm/x"},
            "Training started from timm x (licence mit), whose licence is mit.",
        ),
        (
            {"starts_from": "timm x", "licence": "dinov3-license", "base_model": "timm/x"},
            {"license": "other", "license_name": "dinov3-license", "base_model": "timm/x"},
            "whose licence is dinov3-license.",
        ),
        (
            {"starts_from": "w.pth, given as timm x", "licence": "mit"},
            {},
            "segvit does not check where a file comes from",
        ),
        (
            {"starts_from": "w.pth, given as timm x", "licence": "cc-by-nc-4.0"},
            {"license": "cc-by-nc-4.0"},
            "By that name the licence is cc-by-nc-4.0",
        ),
        (
            {"converted_from": "ade_51.3.pth", "licence": "academic use only"},
            {"license": "other", "license_name": "academic use only"},
            "Licence of these weights: academic use only.",
        ),
    ],
)
def test_the_card_publishes_licence_and_origin(
    trained: Path, origin: dict[str, str], front: dict[str, str], text: str
) -> None:
    header = {key: value for key, value in read_header(trained).items() if key != "starts_from"}
    card = model_card(header | origin, repo="a/b")
    read = yaml.safe_load(card.split("---")[1])
    assert {key: read[key] for key in ("license", "license_name", "base_model") if key in read} == front
    assert text in card


NAMES = (
    "two\nlines",
    "a | b",
    "`code`",
    "back\\slash\\",
    "\\|",
    "*stars* and **more**",
    "_low_ but vit_tiny",
    "<b>bold</b> &amp; $x$",
    "[link](x) ![picture](y)",
    "~~gone~~",
    "\r\nend",
)


def test_any_class_name_is_shown_as_typed(trained: Path) -> None:
    header = read_header(trained)
    metrics = {**header["metrics"], **{key: [0.5] * len(NAMES) for key in ("iou", "accuracy", "dice", "boundary_iou")}}
    classes = [{"name": name, "raw": index, "color": [0, 0, index]} for index, name in enumerate(NAMES)]
    spec = {**header["spec"], "classes": classes, "name": "my | data\n# set"}
    card = model_card({**header, "spec": spec, "metrics": metrics, "starts_from": "a | b\n`c`"}, repo="a/b")
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card.partition("\n---\n")[2])
    shown = [seen_text(token) for token in tokens if token.type == "inline"]
    for name in NAMES:
        assert " ".join(name.split()) in shown
    assert "a | b `c`" in shown
    assert [token.type for token in tokens].count("table_open") == 4
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1"] + ["h2"] * 6


def seen_text(token: Token) -> str:
    """Text of a paragraph or cell without its marks: None of the names may have any."""
    return "".join(child.content if child.type == "text" else f"<{child.type}>" for child in token.children or ())
