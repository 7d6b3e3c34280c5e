"""timm's weights: at any size as timm resizes them, from a file or the Hub, with licence, mean and deviation said."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors.torch import save_file
from torch import Tensor, nn

import segvit.data.dataset as dataset_module
from segvit.cli import main as cli
from segvit.config import AugmentConfig, DataConfig, EvalConfig, ModelConfig, TrainConfig
from segvit.errors import UserError
from segvit.models.create import create_backbone, create_model
from segvit.training.train import train
from segvit.weights.load import load_model
from segvit.weights.model_file import read_header
from segvit.weights.timm_weights import licence_of, origin_of, starts_from
from tests.helpers.tiny import TINY, VARIANTS, stir, timm_file, tiny_config

ABSOLUTE = [name for name in VARIANTS if name != "beitv2" and not name.startswith("dinov3")]
"""Families with an absolute position embedding."""
VIT = tiny_config("vit")


@pytest.fixture
def tiny_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm, whose models are all tiny, and which cannot reach the Hub."""
    create = timm.create_model

    def create_tiny(name: str, *, pretrained: bool = False, **arguments: Any) -> nn.Module:
        if pretrained and "state_dict" not in arguments.get("pretrained_cfg_overlay", {}):
            raise OSError("the Hub is not to be reached")
        made: nn.Module = create(name, pretrained=pretrained, **{**TINY, **arguments})
        return made

    monkeypatch.setattr(timm, "create_model", create_tiny)


def weights_of(config: ModelConfig, *, num_classes: int = 1000) -> dict[str, Tensor]:
    """Random weights of timm's model, classifier and all, at timm's own size."""
    torch.manual_seed(5)
    donor = timm.create_model(config.backbone, num_classes=num_classes, **TINY)
    stir(donor)
    return donor.state_dict()


# Any size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ABSOLUTE)
def test_weights_of_224_have_timms_bicubic_positions_at_512(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By timm's function, by timm's own filter of checkpoints, and by the formula."""
    path = timm_file(tmp_path, variant, monkeypatch)
    size = 640 if variant.startswith("dinov2") else 512  # its weights are of 518, which 512 is padded to
    config = replace(tiny_config(variant), image_size=size, pretrained=True, position_grid="crop")
    backbone, _ = create_backbone(config)
    donor, ours = torch.load(path)["pos_embed"], backbone.pos_embed
    assert ours is not None
    patch = backbone.patch_size
    grid = -(-size // patch)
    native = round((donor.shape[1]) ** 0.5)  # prefix tokens are fewer than a row
    prefix = donor.shape[1] - native**2
    assert backbone.native_grid == (grid, grid) != (native, native)

    by_function = timm.layers.resample_abs_pos_embed(donor, [grid, grid], num_prefix_tokens=prefix)
    maps = donor[:, prefix:].transpose(1, 2).unflatten(2, (native, native))
    resized = F.interpolate(maps, size=(grid, grid), mode="bicubic", antialias=True)
    by_formula = torch.cat([donor[:, :prefix], resized.flatten(2).transpose(1, 2)], dim=1)
    if config.class_token is False:  # timm's filter cannot drop it
        by_function, by_formula = by_function[:, prefix:], by_formula[:, prefix:]
    else:
        reference = timm.create_model(config.backbone, pretrained=True, num_classes=0, img_size=grid * patch)
        assert torch.equal(ours, reference.pos_embed)
    assert torch.equal(ours, by_function)
    assert torch.allclose(ours, by_formula, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # its resizing of BEiT's tables
def test_weights_of_224_have_timms_relative_bias_at_512(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = timm_file(tmp_path, "beitv2", monkeypatch)
    config = replace(tiny_config("beitv2"), image_size=512, pretrained=True)
    backbone, _ = create_backbone(config)
    reference = timm.create_model(config.backbone, pretrained=True, num_classes=0, img_size=512)
    donor = torch.load(path)
    assert backbone.relative_bias_tables is not None and len(backbone.relative_bias_tables) == 4
    for index, table in enumerate(backbone.relative_bias_tables):
        assert table.shape == (63 * 63 + 3, 2)
        assert torch.equal(table, reference.blocks[index].attn.relative_position_bias_table)
        assert torch.equal(table[-3:], donor[f"blocks.{index}.attn.relative_position_bias_table"][-3:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_mean_and_deviation_are_those_of_the_weights(variant: str) -> None:
    model = create_model(config=tiny_config(variant), num_classes=2)
    settings = timm.get_pretrained_cfg(VARIANTS[variant]["backbone"])
    assert model.mean.tolist() == pytest.approx(settings.mean)
    assert model.std.tolist() == pytest.approx(settings.std)


def test_mean_and_deviation_go_by_the_tag() -> None:
    means = []
    for tag in ("augreg_in21k", "dino"):
        model = create_model(f"vit_small_patch16_224.{tag}", num_classes=2, config=ModelConfig(**TINY, image_size=32))
        means.append(model.mean.tolist())
    assert means[0] == [0.5, 0.5, 0.5]
    assert means[1] == pytest.approx([0.485, 0.456, 0.406])


# From a file ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # its resizing of BEiT's tables
@pytest.mark.parametrize("variant", [name for name in VARIANTS if "without class token" not in name])
def test_a_file_gives_what_the_hub_gives(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(variant)
    state = weights_of(config)
    save_file(state, tmp_path / "model.safetensors")
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    with monkeypatch.context() as patch:
        path = timm_file(tmp_path, variant, patch)
        torch.save({key: value for key, value in state.items() if not key.startswith("head")}, path)
        expected, _ = create_backbone(replace(config, pretrained=True))
    monkeypatch.setattr(timm, "create_model", _tiny(timm.create_model))
    for name in ("model.safetensors", "model.pth"):
        ours, _ = create_backbone(replace(config, pretrained_file=tmp_path / name))
        theirs = expected.state_dict()
        assert ours.state_dict().keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


def _tiny(create: Any) -> Any:
    return lambda name, **arguments: create(name, **{**TINY, **arguments})


@pytest.mark.usefixtures("tiny_timm")
@pytest.mark.parametrize(
    "change, told",
    [
        ({"drop": "blocks.2.norm1.weight"}, r"(?s)not the weights of 'vit_tiny.*blocks\.2\.norm1\.weight"),
        ({"add": "blocks.4.norm1.weight"}, r"(?s)not the weights of 'vit_tiny.*blocks\.4\.norm1\.weight"),
        ({"reshape": "blocks.1.mlp.fc1.weight"}, r"(?s)not the weights of 'vit_tiny.*blocks\.1\.mlp\.fc1\.weight"),
        ({"other": True}, r"(?s)not the weights of 'vit_tiny.*Missing key.*timm/vit_tiny_patch16_224\.augreg_in21k"),
    ],
    ids=["missing", "unexpected", "mis-shaped", "of something else"],
)
def test_a_file_of_other_weights_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    """timm itself passes over what is missing where the number of classes is another: training would start anew."""
    state = weights_of(VIT)
    if "drop" in change:
        del state[change["drop"]]
    elif "add" in change:
        state[change["add"]] = torch.zeros(64)
    elif "reshape" in change:
        state[change["reshape"]] = torch.zeros(3, 64)
    else:
        state = {"conv1.weight": torch.zeros(8, 3, 3, 3), "fc.bias": torch.zeros(10)}
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    with pytest.raises(UserError, match=told):
        create_backbone(replace(VIT, pretrained_file=path))


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.usefixtures("tiny_timm")
@pytest.mark.parametrize(
    "kind, told",
    [
        ("none", "no file .*"),
        ("folder", "no file .*"),
        ("empty", r".*: an empty file \(0 bytes\)"),
        ("cut", ".*is incomplete"),
        ("web page", ".*: a web page instead of weights"),
        ("trap", ".*it holds objects whose code would have to run"),
        ("trap in torch", ".*it holds objects whose code would have to run"),
        ("numbers", ".*holds no weights by name"),
    ],
)
def test_what_holds_no_weights_is_refused_and_runs_nothing(kind: str, told: str, tmp_path: Path) -> None:
    path, sprung = tmp_path / "w.pth", tmp_path / "sprung"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        torch.save(weights_of(VIT), path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "web page":
        path = tmp_path / "w.safetensors"
        path.write_text("<html>404</html>")
    elif kind == "trap":
        path.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    elif kind == "trap in torch":
        torch.save({"state_dict": Trap(sprung)}, path)
    elif kind == "numbers":
        torch.save({"lr": 3}, path)
    with pytest.raises(UserError, match=rf"model\.pretrained_file: {told}") as caught:
        create_backbone(replace(VIT, pretrained_file=path))
    assert str(path) in str(caught.value) and not sprung.exists()
    assert "weights_only=False" not in str(caught.value)  # torch and timm advise to run what is in the file


@pytest.mark.usefixtures("tiny_timm")
def test_a_model_of_ours_is_not_timms_weights(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    create_model(config=VIT, num_classes=2).save(path)
    with pytest.raises(UserError, match=r"best\.safetensors is a model of segvit; start from it with --init"):
        create_backbone(replace(VIT, pretrained_file=path))


# From the Hub ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_timm")
def test_offline_it_says_which_file_to_put_where() -> None:
    with pytest.raises(UserError) as caught:
        create_backbone(replace(VIT, pretrained=True))
    told = str(caught.value)
    assert "no pretrained weights for 'vit_tiny_patch16_224': the Hub is not to be reached" in told
    assert "hf download timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k model.safetensors" in told
    assert "--model.pretrained-file FILE" in told and "--model.no-pretrained" in told
    assert f"models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k into {HF_HUB_CACHE}" in told


@pytest.mark.parametrize(
    "name, told",
    [
        ("vit_giant_patch14_224", r"timm has none; its tags with weights: none; --model\.no-pretrained"),
        (
            "vit_giant_patch16_gap_224.in22k_ijepa",
            r"They are at \S+/IN22K-vit\.g\.16-600e\.pth\.tar\..*--model\.pretrained",
        ),
    ],
)
def test_weights_that_are_nowhere_or_elsewhere_are_told(name: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", _tiny(create))
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", lambda *_, **__: 1 / 0)  # no network in tests
    with pytest.raises(UserError, match=rf"(?s)no pretrained weights for '{name}'.*{told}"):
        create_backbone(ModelConfig(backbone=name, image_size=28, pretrained=True, **TINY))


# What a run starts from -----------------------------------------------------------------------------------------------


def test_the_licence_is_timms_or_unknown() -> None:
    said = {}
    for name in ("vit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit_base_patch16_224.mae"):
        settings = timm.get_pretrained_cfg(name).to_dict()
        said[name] = starts_from(settings)
    assert said["vit_tiny_patch16_224"] == "timm vit_tiny_patch16_224.augreg_in21k_ft_in1k (licence apache-2.0)"
    assert said["vit_small_patch16_dinov3"] == "timm vit_small_patch16_dinov3.lvd1689m (licence dinov3-license)"
    assert said["vit_base_patch16_224.mae"] == "timm vit_base_patch16_224.mae (licence cc-by-nc-4.0)"
    assert licence_of({"architecture": "x"}) == licence_of({"license": None}) == "unknown"
    assert starts_from({"architecture": "x", "license": "mit"}, file=Path("f/a.pth")) == (
        "a.pth, given as timm x (licence mit)"
    )


def test_only_weights_from_the_hub_name_their_repository() -> None:
    settings = timm.get_pretrained_cfg("vit_base_patch16_224.mae").to_dict()
    origin = origin_of(settings, file=None)
    assert origin == {
        "starts_from": "timm vit_base_patch16_224.mae (licence cc-by-nc-4.0)",
        "licence": "cc-by-nc-4.0",
        "base_model": "timm/vit_base_patch16_224.mae",
    }
    assert origin_of(settings, file=Path("folder/w.pth")) == {
        "starts_from": "w.pth, given as timm vit_base_patch16_224.mae (licence cc-by-nc-4.0)",
        "licence": "cc-by-nc-4.0",
    }
    assert "base_model" not in origin_of({"architecture": "x", "license": "mit"}, file=None)


@pytest.mark.usefixtures("tiny_timm")
def test_a_run_says_which_weights_it_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its model knows them when the file is gone, and is trained on from its checkpoint without it."""
    monkeypatch.setattr(dataset_module, "SHAPES_LENGTH", {"train": 4, "val": 2})
    path = tmp_path / "w.safetensors"
    save_file(weights_of(VIT), path)
    config = TrainConfig(
        model=replace(VIT, image_size=32, pretrained_file=path),
        data=DataConfig(spec="shapes", workers=0),
        augment=AugmentConfig(resize_long=None),
        eval=EvalConfig(mode="whole"),
        steps=1,
        batch_size=2,
        device="cpu",
        output=tmp_path / "run",
    )
    run = train(config)
    origin = "w.safetensors, given as timm vit_tiny_patch16_224.augreg_in21k_ft_in1k (licence apache-2.0)"
    assert f"vit_tiny_patch16_224 (plain) starts from {origin}\n" in capsys.readouterr().out
    path.unlink()
    model = load_model(run.path)
    assert (model.extra["starts_from"], model.extra["licence"]) == (origin, "apache-2.0")
    assert "base_model" not in model.extra  # the file may hold anything
    assert str(tmp_path).encode() not in run.path.read_bytes()
    header = read_header(run.path)
    assert header["model"]["pretrained_file"] == header["train"]["model"]["pretrained_file"] == "w.safetensors"
    assert header["train"]["output"] == "run"
    train(config, resume=True)
    assert f"(plain) resumes at step 1, started from {origin}\n" in capsys.readouterr().out


# What was said badly --------------------------------------------------------------------------------------------------


def test_an_override_that_timm_refuses_without_a_word_is_told() -> None:
    with pytest.raises(UserError, match=r"vit_giant_patch14_dinov2.*'embed_dim': 64.*hidden_features % 2.*1536"):
        create_backbone(ModelConfig(backbone="vit_giant_patch14_dinov2", image_size=28, **TINY))


@pytest.mark.parametrize("side", [0, -5])
def test_a_crop_of_no_pixels_names_the_setting(side: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["segvit", "info", "vit_tiny_patch16_224", "--image-size", str(side)])
    with pytest.raises(SystemExit) as leave:
        cli.main()
    assert leave.value.code == 2
    assert f"model.image_size is {side}: give the side" in capsys.readouterr().err
