"""The command line from end to end, as a user types it: scenes, check, train, evaluate, predict, info, demo."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from segvit import demo
from segvit.cli import main as cli
from segvit.cli.help.examples import EXAMPLES
from segvit.config import ModelConfig, TrainConfig
from segvit.data.shapes.scenes import write_shapes
from segvit.data.spec import load_spec

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPES = load_spec("shapes")
TINY = ["--model.backbone", "vit_tiny_patch16_224", "--model.patch-size", "8", "--model.embed-dim", "32"]
TINY += ["--model.depth", "2"]
TRAINING = ["--model.image-size", "32", "--batch-size", "4", "--accumulate", "1", "--steps", "3"]
TRAINING += ["--data.workers", "0", "--device", "cpu"]


class Said(NamedTuple):
    """What a command left: exit code, and the two streams."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error text without rich's frame and line breaks."""
        return " ".join(self.err.replace("│", " ").split())


Command = Callable[..., Said]


@pytest.fixture
def segvit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: Any) -> Said:
        monkeypatch.setattr("sys.argv", ["segvit", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        said = Said(code, *capsys.readouterr())
        assert "Traceback" not in said.err
        return said

    return run


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_shapes(root, train=24, val=6, size=32)
    return root


@pytest.fixture(scope="module")
def run_folder(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of training, by the one true process of these tests."""
    output = tmp_path_factory.mktemp("runs") / "a run"
    words = ["train", "--data.spec", "shapes", "--data.root", scenes, *TINY, *TRAINING, "--output", output]
    result = subprocess.run(
        [sys.executable, "-m", "segvit.cli.main", *map(str, words)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    best, photo = output / "best.safetensors", next((scenes / "images" / "val").iterdir()).parent
    assert lines[-7] == f"best model {best}" and re.fullmatch(r"mIoU 0\.\d{3}", lines[-6])
    assert lines[-5:-3] == [f"report {output / 'report.html'}", "Next:"]
    predict, score, look = map(shlex.split, lines[-3:])
    assert predict[:3] == ["segvit", "predict", str(best)] and Path(predict[3]).parent == photo
    assert score == ["segvit", "evaluate", str(best), "--config", str(output / "config.yaml")]
    assert look == ["segvit", "app", str(best)]
    assert "per class, last validation" in result.stdout and all(name in result.stdout for name in SHAPES.classes)
    assert "step 1/3" in result.stdout and "step 3/3" in result.stdout and "8 classes of shapes" in result.stdout
    assert (output / "train_batches.png").is_file()
    return output


@pytest.fixture
def model(run_folder: Path) -> Path:
    return run_folder / "best.safetensors"


# --- check, train, evaluate ------------------------------------------------------------------------------------------


def test_check_data_on_good_scenes(segvit: Command, scenes: Path) -> None:
    said = segvit("check-data", "--data.spec", "shapes", "--data.root", scenes)
    assert said.code == 0 and not said.err
    assert "train: shapes: all 24 pairs checked, no errors" in said.out
    assert "val: shapes: all 6 pairs checked, no errors" in said.out
    assert said.out.splitlines()[-1] == f"  segvit train --data.spec shapes --data.root {scenes}"
    for name in SHAPES.classes:
        assert name in said.out
    val = segvit("check-data", "--data.spec", "shapes", "--data.root", scenes, "--split", "val").out
    assert "all 6 pairs" in val and "train:" not in val


def test_check_data_on_spoilt_scenes(segvit: Command, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes, tmp_path / "s")
    path = next((tmp_path / "s" / "labels" / "train").iterdir())
    Image.fromarray(np.full((32, 32), 99, dtype=np.uint8)).save(path)
    said = segvit("check-data", "--data.spec", "shapes", "--data.root", tmp_path / "s")
    assert said.code == 1 and str(path) in said.err and "label value 99" in said.err
    assert "(unknown)" in said.out  # the table comes before the verdict


def test_check_data_on_two_folders_as_the_readme_types_it(segvit: Command, scenes: Path) -> None:
    folders = ["--data.images", scenes / "images" / "train", "--data.labels", scenes / "labels" / "train"]
    said = segvit("check-data", *folders, "--data.classes", *SHAPES.classes)
    assert said.code == 0 and "all 22 pairs checked, no errors" in said.out  # two are kept for validation
    one_by_one = [word for name in SHAPES.classes for word in ("--data.classes", name)]
    assert segvit("check-data", *folders, *one_by_one).out == said.out


def test_check_data_draws_the_crops_of_a_training(segvit: Command, run_folder: Path, tmp_path: Path) -> None:
    words = ["check-data", "--config", run_folder / "config.yaml", "--augmented"]
    said = segvit(*words, tmp_path / "a.png")
    assert said.code == 0 and f"crops of 32 px with their labels: {tmp_path / 'a.png'}" in said.out
    assert (tmp_path / "a.png").read_bytes() == (run_folder / "train_batches.png").read_bytes()
    assert segvit(*words, tmp_path / "b.png", "--augment.preset", "aerial").code == 0
    assert (tmp_path / "b.png").read_bytes() != (tmp_path / "a.png").read_bytes()
    for more, error in {
        ("c.gif",): "--augmented c.gif: give a file that ends in .png or .jpg",
        ("c.png", "--augment.preset", "arial"): "aerial",
        ("c.png", "--augment.rotation", "-3"): "augment.rotation is -3.0; it must be in 0..180 degrees",
        ("c.png", "--augment.module", "nowhere:f"): "augment.module 'nowhere:f': nowhere cannot be imported",
    }.items():
        said = segvit(*words, *more)
        assert said.code == 2 and error in said.error
    said = segvit("check-data", "--config", run_folder / "config.yaml", "--augment.blur", "2")
    assert said.code == 2 and "--augment.blur has an effect on --augmented alone" in said.error


def test_check_data_takes_the_data_of_a_run_or_recipe(segvit: Command, scenes: Path, run_folder: Path) -> None:
    assert "all 24 pairs" in segvit("check-data", "--config", run_folder / "config.yaml").out
    said = segvit("check-data", "--config", "shapes/demo", "--data.root", scenes)
    assert said.code == 0 and "all 24 pairs" in said.out


def test_train_leaves_its_settings(run_folder: Path, scenes: Path) -> None:
    config = TrainConfig.load(run_folder / "config.yaml")
    assert (config.steps, config.batch_size, config.device) == (3, 4, "cpu")
    assert (config.model.patch_size, config.model.embed_dim, config.model.depth) == (8, 32, 2)
    assert config.data.root == scenes
    assert config.optim.lr == pytest.approx(TrainConfig.load("scratch").optim.lr / 2**0.5, rel=0.02)  # half the batch


def test_flags_go_over_a_config(segvit: Command, run_folder: Path, tmp_path: Path) -> None:
    said = segvit("train", "--config", run_folder / "config.yaml", "--steps", "1", "--output", tmp_path / "run")
    assert said.code == 0, said.err
    config = TrainConfig.load(tmp_path / "run" / "config.yaml")
    assert config.steps == 1 and config.model.embed_dim == 32


def test_train_does_not_write_over_a_run(segvit: Command, run_folder: Path) -> None:
    said = segvit("train", "--config", run_folder / "config.yaml")
    assert said.code == 2 and str(run_folder) in said.err and "--resume" in said.err
    said = segvit("train", "--config", run_folder / "config.yaml", "--resume", "--data.workers", "0")
    assert said.code == 0 and "resumes at step 3" in said.out


def test_evaluate_prints_and_writes_the_same(segvit: Command, model: Path, scenes: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "scores.json"
    data = ["--data.spec", "shapes", "--data.root", scenes, "--data.workers", "0"]
    said = segvit("evaluate", model, *data, "--json", file, "--device", "cpu")
    assert said.code == 0, said.err
    scores = json.loads(file.read_text())
    assert scores["model"] == str(model) and scores["images"] == 6 and tuple(scores["classes"]) == SHAPES.classes
    assert scores["protocol"]["mode"] == "slide" and scores["protocol"]["window"] == 32
    assert len(scores["iou"]) == len(scores["accuracy"]) == 8
    there = [value for value in scores["iou"] if value is not None]
    assert scores["miou"] == pytest.approx(sum(there) / len(there))
    assert said.out.splitlines()[-1] == f"mIoU {scores['miou']:.4f}"
    for name, iou in zip(scores["classes"], scores["iou"], strict=True):
        shown = "-" if iou is None else f"{100 * iou:.2f}"
        assert re.search(rf"{name}\s+│\s+{re.escape(shown)}\s", said.out)
    assert "6 images" in said.out and "window 32" in said.out
    whole = segvit("evaluate", model, *data, "--mode", "whole", "--json", file, "--device", "cpu", "--split", "train")
    assert whole.code == 0 and json.loads(file.read_text())["protocol"]["mode"] == "whole"
    assert "24 images" in whole.out
    windows = ["--window", "24", "--stride", "8", "--device", "cpu", "--json", file]
    ious = [segvit("evaluate", model, *data, *windows, "--blend", blend) for blend in ("mean", "gaussian")]
    assert [said.code for said in ious] == [0, 0] and json.loads(file.read_text())["protocol"]["blend"] == "gaussian"


def test_evaluate_takes_the_data_of_the_run(
    segvit: Command, model: Path, run_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    """Without --config: from the config.yaml beside the model, which names data and gives the run's own score."""
    said = segvit("evaluate", model, "--json", tmp_path / "a.json", "--device", "cpu")
    assert said.code == 0, said.err
    assert said.out.startswith(f"data of {run_folder / 'config.yaml'}; protocol of the model")
    named = segvit("evaluate", model, "--config", run_folder / "config.yaml", "--json", tmp_path / "b.json")
    assert named.code == 0 and (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    shown = re.search(r"validation mIoU\s+│\s+(0\.\d{4})", segvit("info", model).out)
    assert shown and said.out.splitlines()[-1] == f"mIoU {shown[1]}"
    moved = tmp_path / "moved"
    shutil.copytree(scenes, moved)
    assert segvit("evaluate", model, "--data.root", moved, "--device", "cpu").code == 0  # a flag goes over it
    shutil.copy(model, tmp_path / "alone.safetensors")
    said = segvit("evaluate", tmp_path / "alone.safetensors")
    assert said.code == 2 and "there is no config.yaml beside" in said.error and "type `--config FILE`" in said.error
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    other = segvit("evaluate", model, "--data.images", tmp_path / "x", "--data.labels", tmp_path / "y")
    assert other.code == 2 and "class names" in other.error  # nothing of config.yaml mixes with named folders


# --- predict ---------------------------------------------------------------------------------------------------------


def write_photos(root: Path) -> Path:
    """Photos of several sizes and kinds with a sub-folder, one cut short, and files that are no images."""
    random = np.random.default_rng(0)
    for name, size in (
        ("a.jpg", (33, 47)),
        ("deep/er/b.PNG", (32, 32)),
        ("deep/c.d.webp", (70, 20)),
        ("bad.jpg", (64, 64)),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name)
    (root / "bad.jpg").write_bytes((root / "bad.jpg").read_bytes()[:900])
    (root / "notes.txt").write_text("no image")
    (root / "._a.jpg").write_bytes(b"left by another system")
    return root


def test_predict_a_folder(segvit: Command, model: Path, tmp_path: Path) -> None:
    photos, seen = write_photos(tmp_path / "photos"), tmp_path / "seen"
    said = segvit("predict", model, photos, "--output", seen, "--confidence", "--device", "cpu")
    assert said.code == 2  # one photo is broken; the others are done
    assert f"3 label maps in {seen}" in said.out
    assert "1 of 4 images could not be read" in said.err and str(photos / "bad.jpg") in said.err
    names = ("a", "deep/er/b", "deep/c.d")
    files = {path.relative_to(seen).as_posix() for path in seen.rglob("*") if path.is_file()}
    endings = (".png", "_overlay.png", "_confidence.png", ".json")
    assert files == {"predict.yaml", *(name + ending for name in names for ending in endings)}
    colors = [part for color in SHAPES.palette for part in color]
    for name, (height, width) in zip(names, ((33, 47), (32, 32), (70, 20)), strict=True):
        labels = Image.open(seen / f"{name}.png")
        assert labels.mode == "P" and labels.size == (width, height)
        assert (labels.getpalette() or [])[: len(colors)] == colors
        values = np.asarray(labels)
        assert values.max() < 8
        facts = json.loads((seen / f"{name}.json").read_text())
        assert (facts["width"], facts["height"]) == (width, height) and Path(facts["image"]).is_file()
        assert sum(facts["shares"].values()) == pytest.approx(1)
        for index, label in enumerate(SHAPES.classes):
            assert facts["shares"].get(label, 0) == pytest.approx((values == index).mean())
        confidence = Image.open(seen / f"{name}_confidence.png")
        assert confidence.mode == "L" and confidence.size == (width, height)
        assert np.asarray(confidence).min() >= 255 // 8  # the winner has the largest share of eight
        overlay = Image.open(seen / f"{name}_overlay.png")
        assert overlay.mode == "RGB" and overlay.width >= width and overlay.height > height  # a legend below


def test_predict_good_files(segvit: Command, model: Path, tmp_path: Path) -> None:
    photos, seen = write_photos(tmp_path / "photos"), tmp_path / "seen"
    said = segvit("predict", model, photos / "a.jpg", photos / "deep", "--output", seen, "--opacity", "1")
    assert said.code == 0 and not said.err and "3 label maps" in said.out
    files = {path.relative_to(seen).as_posix() for path in seen.rglob("*.png")}
    assert files == {f"{name}{ending}" for name in ("a", "er/b", "c.d") for ending in (".png", "_overlay.png")}


def test_opacity_runs_from_the_photo_to_the_colours(segvit: Command, model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (120, 121, 122)).save(tmp_path / "flat.png")
    for opacity in ("0", "1"):
        seen = tmp_path / "seen"
        words = ["predict", model, tmp_path / "flat.png", "--output", seen, "--overwrite"]
        assert segvit(*words, "--opacity", opacity).code == 0
        color = SHAPES.palette[np.asarray(Image.open(seen / "flat.png"))[3, 3]]
        shown = Image.open(seen / "flat_overlay.png").getpixel((3, 3))
        assert shown == ((120, 121, 122), color)[int(opacity)]


def test_raw_ids_are_those_of_the_dataset(segvit: Command, tmp_path: Path) -> None:
    """A model of a dataset whose raw values are not 0, 1, 2, ... and need 16 bits."""
    images, masks, run = tmp_path / "images", tmp_path / "masks", tmp_path / "run"
    raw = np.array([7, 300, 1000], dtype=np.uint16)
    for folder in (images, masks):
        folder.mkdir()
    for index in range(4):
        labels = np.random.default_rng(index).integers(0, 3, (32, 32))
        Image.fromarray((labels * 100).astype(np.uint8)).convert("RGB").save(images / f"{index}.png")
        Image.fromarray(raw[labels]).save(masks / f"{index}.png")
    classes = ["--data.classes", "a=7", "b=300", "c=1000"]
    folders = ["--data.images", images, "--data.labels", masks, *classes]
    said = segvit("train", *folders, *TINY, *TRAINING, "--output", run)
    assert said.code == 0, said.err
    for ids, output in (("index", tmp_path / "index"), ("raw", tmp_path / "raw")):
        assert segvit("predict", run / "last.safetensors", images, "--output", output, "--ids", ids).code == 0
    for index in range(4):
        indices = np.asarray(Image.open(tmp_path / "index" / f"{index}.png"))
        values = np.asarray(Image.open(tmp_path / "raw" / f"{index}.png"))
        assert (values == raw[indices]).all()


def test_predict_turns_photos_as_their_exif_says(segvit: Command, model: Path, tmp_path: Path) -> None:
    upright = np.zeros((48, 24, 3), dtype=np.uint8)
    upright[:16], upright[16:32] = (90, 150, 235), (60, 120, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: a viewer turns it clockwise
    (tmp_path / "photos").mkdir()
    Image.fromarray(upright).save(tmp_path / "photos" / "upright.png")
    Image.fromarray(np.rot90(upright)).save(tmp_path / "photos" / "turned.png", exif=exif)
    seen = tmp_path / "seen"
    assert segvit("predict", model, tmp_path / "photos", "--output", seen, "--device", "cpu").code == 0
    for ending in (".png", "_overlay.png"):
        one, other = (np.asarray(Image.open(seen / f"{name}{ending}")) for name in ("upright", "turned"))
        assert one.shape[:2] >= (48, 24) and one.shape == other.shape and (one == other).all()
    assert json.loads((seen / "turned.json").read_text())["height"] == 48


# --- info, help, typos -----------------------------------------------------------------------------------------------


def test_info_on_a_model(segvit: Command, model: Path) -> None:
    said = segvit("info", model)
    assert said.code == 0
    for row in (r"width, blocks\s+│\s+32, 2", r"patch\s+│\s+8 px", r"number of classes\s+│\s+8", "sky, water, grass"):
        assert re.search(row, said.out)
    assert re.search(r"validation mIoU\s+│\s+0\.\d{4} \(6 images\)", said.out) and "mode slide" in said.out
    assert "shrinks at block" not in said.out


def test_info_on_a_config(segvit: Command, run_folder: Path) -> None:
    for name in ("shapes/demo", REPOSITORY / "configs" / "shapes" / "demo.yaml"):
        said = segvit("info", name, "--size", "32", "32")
        assert said.code == 0 and re.search(r"width, blocks\s+│\s+128, 6", said.out) and "sky, water" in said.out
    assert re.search(r"width, blocks\s+│\s+32, 2", segvit("info", run_folder / "config.yaml").out)


def test_info_on_a_recipe_without_a_dataset(segvit: Command) -> None:
    said = segvit("info", "finetune", "--num-classes", "7", "--size", "64", "64")
    assert said.code == 0 and re.search(r"number of classes\s+│\s+7", said.out), said.err


def test_info_on_a_backbone(segvit: Command) -> None:
    said = segvit("info", "vit_tiny_patch16_224", "--num-classes", "5", "--image-size", "64", "--no-class-token")
    assert said.code == 0
    for row in (r"number of classes\s+│\s+5", r"training crop\s+│\s+64 px", r"prefix tokens\s+│\s+0", "5, 7, 11"):
        assert re.search(row, said.out)


def test_info_counts_what_profile_counts(segvit: Command, model: Path, tmp_path: Path) -> None:
    from segvit import load_model, profile

    said = segvit("info", model, "--size", "33", "70", "--json", tmp_path / "new" / "info.json")
    told = json.loads((tmp_path / "new" / "info.json").read_text(encoding="utf-8"))
    seen = profile(load_model(model), (33, 70))
    assert said.code == 0 and seen.to_dict().items() <= told.items()
    assert told["embed_dim"] == 32 and told["classes"][0] == "sky" and told["metrics"]["images"] == 6
    for name, costs in [(part.name, part) for part in seen.parts] + [("total", seen)]:
        amounts = (f"{costs.multiply_adds / 1e9:.3g}", f"{costs.flops / 1e9:.3g}")
        assert re.search(rf"{name} +│ +{costs.parameters:,} │ +{amounts[0]} │ +{amounts[1]} │", said.out), said.out
    assert re.search(rf"model\.predict, at most +│ +│ +{seen.predict_multiply_adds / 1e9:.3g} │", said.out)
    assert "33 x 70 px" in said.out and "multiply-adds (G)" in said.out and "FLOPs (G)" in said.out


@pytest.mark.slow
@pytest.mark.parametrize("structure, paper", [("shrunk", 97.1), ("naive_shrunk", 74.1), ("plain", 120.9)])
def test_info_of_the_papers_models(segvit: Command, structure: str, paper: float) -> None:
    backbone = ("vit_base_patch16_384", "--no-class-token", "--image-size", "512", "--structure", structure)
    flags = ("--upsampling", "paper") if structure == "shrunk" else ()
    said = segvit("info", *backbone, *flags, "--json", "-")
    told = json.loads(said.out)
    assert said.code == 0 and not said.err
    assert told["multiply_adds"] / 1e9 == pytest.approx(paper, rel=0.005)
    assert told["size"] == [512, 512] and told["num_classes"] == 150 and told["num_classes_assumed"]
    assert told["shrink_at"] == (None if structure == "plain" else 6)


@pytest.mark.slow
def test_info_of_the_papers_single_stage(segvit: Command, tmp_path: Path) -> None:
    config = tmp_path / "single.yaml"
    config.write_text("model:\n  class_token: false\n  taps: [11]\n")
    told = json.loads(segvit("info", config, "--num-classes", "150", "--json=-").out)
    assert told["multiply_adds"] / 1e9 == pytest.approx(115.8, rel=0.005)
    assert told["taps"] == [11] and not told["num_classes_assumed"]


def test_info_on_a_shrunk_model(segvit: Command) -> None:
    said = segvit("info", "vit_tiny_patch16_224", "--structure", "shrunk", "--size", "40", "64")
    assert said.code == 0 and "40 x 64 px" in said.out
    for row in (r"shrinks at block\s+│\s+7", r"down-sampling\s+│\s+nearest_q", r"up-sampling\s+│\s+tap"):
        assert re.search(row, said.out)
    assert "backbone from QD on" in said.out and re.search(r"│ up-sampling +│ +[\d,]+ │", said.out)
    told = json.loads(
        segvit(
            "info", "vit_tiny_patch16_224", "--structure=shrunk", "--upsampling=paper", "--size=32", "32", "--json=-"
        ).out
    )
    assert told["upsampling"] == "paper" and "up-sampling" in [part["name"] for part in told["parts"]]


@pytest.mark.parametrize(
    "line, parts",
    [
        ("vit_tiny_patch16_224 --size 640", ("--size requires 2", "Type --size HEIGHT WIDTH, such as --size 640 640")),
        ("vit_tiny_patch16_224 --size 640 --json x", ("Type --size HEIGHT WIDTH, such as --size 640 640",)),
        ("vit_tiny_patch16_224 --size 640x480", ("Type --size HEIGHT WIDTH, such as --size 640 640",)),
        ("vit_tiny_patch16_224 --size a b", ("--size a b", "whole pixels", "such as --size 640")),
        ("vit_tiny_patch16_224 --size 64.5 64", ("--size 64.5 64", "whole pixels")),
        ("vit_tiny_patch16_224 --size 0 64", ("size 0 x 64", "1 pixel or more", "such as 640 640")),
        ("vit_tiny_patch16_224 --size 64 -3", ("--size 64 -3", "whole pixels")),
        ("vit_tiny_patch16_224 --structure shrunk --size 64 16", ("4 x 1 patches", "32 x 32 px")),
        ("vit_tiny_patch16_224 --structure shrnk", ('"shrnk"', '"plain", "shrunk", "naive_shrunk"')),
        ("vit_tiny_patch16_224 --json --no-class-token", ("--json --no-class-token", "- to print")),
        ("vit_tiny_patch16_224 --num-classes 0", ("num_classes 0",)),
        ("vit_tinny_patch16_224", ("unknown backbone 'vit_tinny_patch16_224'", "vit_tiny_patch16_224")),
        ("lost.safetensors --size 64 64", ("no model file lost.safetensors",)),
        ("configs/lost.yaml", ("no config file 'configs/lost.yaml'", "shapes/demo")),
        ("shapes/demo --structure shrunk", ("shapes/demo already sets --structure",)),
        ("shapes/demo --upsampling paper", ("shapes/demo already sets --upsampling",)),
        ("vit_tiny_patch16_224 --upsampling paper", ("model.upsampling paper with model.structure plain",)),
        ("vit_tiny_patch16_224 --structure shrunk --upsampling x", ('"x"', '"tap", "paper"')),
    ],
)
def test_info_says_what_is_wrong(segvit: Command, line: str, parts: tuple[str, ...]) -> None:
    said = segvit("info", *line.split())
    assert said.code == 2 and not said.out.strip()
    for part in parts:
        assert part in said.error


@pytest.mark.parametrize("verb", [(), ("demo",), ("train",), ("evaluate",), ("predict",), ("check-data",), ("info",)])
def test_help(segvit: Command, verb: tuple[str, ...]) -> None:
    said = segvit(*verb, "--help")
    assert said.code == 0 and "Usage: segvit" in said.out and not said.err


def test_version(segvit: Command) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", segvit("--version").out.strip())


@pytest.mark.parametrize(
    "line, parts",
    [
        ("trian --steps 3", ('"trian"', 'Did you mean "train"', "check-data")),
        ("train --optim.lrr 3", ("--optim.lrr", "Did you mean --optim.lr?")),
        ("check-data --data.rot x", ("--data.rot", "Did you mean --data.root?")),
        ("predict m.safetensors a.jpg --ouput b", ("--ouput", "--output")),
        ("demo --device gpu", ('"gpu"', "--device", '"auto", "cpu", "cuda", "mps"')),
        ("train --steps many", ('"many"', "--steps", "int")),
        ("train --augment.scale 1", ("--augment.scale", "2")),
        ("train --config camvid/vit_tinny", ("'camvid/vit_tinny'", "camvid/vit_tiny")),
        ("train", ("no dataset given", "--data.spec NAME --data.root FOLDER")),
        ("predict", ("--model",)),
    ],
)
def test_typos_on_the_command_line(segvit: Command, line: str, parts: tuple[str, ...]) -> None:
    said = segvit(*line.split())
    assert said.code == 2 and not said.out.strip()
    for part in parts:
        assert part in said.error


@pytest.mark.parametrize("verb", ["train", "check-data"])
@pytest.mark.parametrize(
    "text, parts",
    [
        ("data:\n  rooot: x\n", ("`data.rooot`", "did you mean 'data.root'")),
        ("optim:\n  lrr: 1\n", ("`optim.lrr`", "did you mean 'optim.lr'")),
        ("stepz: 1\n", ("`stepz`", "'steps'")),
        ("data:\n  workers: many\n", ("workers", '"many"', "int")),
    ],
)
def test_typos_in_a_config(segvit: Command, verb: str, text: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    said = segvit(verb, "--config", path)
    assert said.code == 2 and "mine.yaml" in said.error
    for part in parts:
        assert part in said.error


def test_an_interrupt_is_no_traceback(segvit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", interrupt)
    said = segvit("demo")
    assert said.code == 130 and "--resume" in said.err


# --- what the documents say to type ----------------------------------------------------------------------------------


TUTORIAL = REPOSITORY / "docs" / "data.md"
"""The page that tests/test_docs.py runs, errors included."""


DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def documented_lines() -> Iterator[Any]:
    """Every `segvit ...` line of the documents, the recipes, the help's examples and the demo's farewell."""
    files = list(DOCUMENTS)
    files += sorted((REPOSITORY / "configs").rglob("*.yaml"))
    files.remove(TUTORIAL)
    texts = {path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8") for path in files}
    for page in (name for name in texts if name.endswith(".md")):  # code alone: a sentence may begin with "segvit"
        texts[page] = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", texts[page], re.MULTILINE | re.DOTALL))
    texts["demo"] = demo.FAREWELL.format(output="runs/demo", model="runs/demo/run/best.safetensors")
    texts["help"] = "\n".join(line for lines in EXAMPLES.values() for line in lines)
    for name, text in texts.items():
        for line in text.replace("\\\n", " ").splitlines():
            if match := re.match(r"(?:#|\$|Your turn)?\s*(segvit [a-z-]+ .*)", line):
                yield pytest.param(match[1], id=f"{name}: {match[1][:60]}")


def parse(line: str) -> Any:
    """The verb of a documented line, such as `data prepare`, and its arguments, without running it."""
    line = re.sub(r"\s{2,}\(.*\)$", "", line)  # a remark
    words = shlex.split(re.sub(r"[\[\]]", "", line), comments=True)[1:]  # [optional]
    verb, _, _ = cli.app.parse_commands(words)
    _, bound, _ = cli.app.parse_args(words, exit_on_error=False, print_error=False)
    return verb, bound.arguments


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documents say to write, and the config.yaml of the runs that they begin.

    The files to write are the YAML blocks whose first line is `# NAME.yaml`.
    """
    folder = tmp_path_factory.mktemp("configs")
    for page in DOCUMENTS:
        for name in re.findall(r"--config (runs/\S+/config\.yaml)", page.read_text()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        for name, text in re.findall(
            r"^```yaml\n# (\w+\.yaml)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL
        ):
            (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("line", documented_lines())
def test_what_the_documents_say_to_type_parses(line: str, configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(configs)
    monkeypatch.setattr("segvit.weights.finetune.network_of", lambda _: ModelConfig())  # of --init, which is not here
    verb, arguments = parse(line)
    assert verb and arguments


def test_documented_lines_are_found_and_can_fail() -> None:
    lines = [parameter.values[0] for parameter in documented_lines()]
    assert {line.split()[1] for line in lines} >= {"predict", "check-data", "train", "evaluate", "info"}
    assert any("--output runs/camvid" in line for line in lines)
    with pytest.raises(Exception, match=r"--data\.imagez"):
        parse("segvit check-data --data.imagez photos")
    with pytest.raises(Exception, match="trian"):
        parse("segvit trian --steps 3")


def test_every_flag_that_the_texts_name_exists() -> None:
    """In documents, and in the error texts of the package."""
    files = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "segvit").rglob("*.py")]
    files.remove(TUTORIAL)
    files.remove(REPOSITORY / "docs" / "coming-from.md")  # names other libraries' flags too
    arguments = cli.app["train"].assemble_argument_collection()
    flags = {flag for argument in arguments for flag in (*argument.names, *argument.negatives)}
    found = set()
    for path in files:
        for flag in re.findall(r"--[a-z]+\.[a-z_-]+", path.read_text(encoding="utf-8")):
            found.add(flag)
            assert flag.replace("_", "-") in flags, f"{path.name}: {flag}"
    assert {"--data.images", "--data.root", "--data.classes", "--optim.lr"} <= found


# --- the demo --------------------------------------------------------------------------------------------------------


def test_demo(segvit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TRAIN_SCENES", 16)
    monkeypatch.setattr(demo, "VAL_SCENES", 3)
    monkeypatch.setattr(demo, "TEST_SCENES", 6)
    output = tmp_path / "tour"
    for _ in range(2):  # the second tour takes the place of the first
        said = segvit("demo", "--steps", "2", "--output", output, "--device", "cpu")
        assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert re.fullmatch(r"mIoU 0\.\d{3}", lines[-1])
    assert [line[:3] for line in lines if re.match(r"\d/5", line)] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    miou = json.loads((output / "scores.json").read_text())["miou"]
    assert lines[-1] == f"mIoU {miou:.3f}"
    model = output / "run" / "best.safetensors"
    assert str(model) in said.out and model.is_file()
    assert len(list((output / "predictions").glob("scene_*_overlay.png"))) == demo.SHOWN
    for picture in ("comparison.png", "curves.png"):
        with Image.open(output / picture) as opened:
            assert min(opened.size) > 90
    assert "segvit predict" in said.out and "segvit check-data" in said.out and "segvit train" in said.out


def test_demo_leaves_a_folder_of_somebody_else_alone(tmp_path: Path) -> None:
    from segvit.demo import run_demo
    from segvit.errors import UserError

    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match=r"choose another --output"):
        run_demo(output=tmp_path, steps=1)
    assert (tmp_path / "scenes" / "mine.txt").read_text() == "precious"


def test_what_an_earlier_run_wrote_is_not_predicted_again(tmp_path: Path) -> None:
    from segvit.prediction.inputs import find_images

    for name in ("a.png", "seen/a.png", "seen/a_overlay.png", "deep/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_images([tmp_path], tmp_path / "seen")
    assert [stem.as_posix() for _, stem in found] == ["a", "deep/b"]
    assert len(find_images([tmp_path / "seen"], tmp_path / "seen")) == 2  # refused later: it would write over them


def test_info_refuses_what_the_file_says_itself() -> None:
    from segvit.errors import UserError
    from segvit.profiling.info import describe

    with pytest.raises(UserError, match=r"camvid/vit_tiny already sets --num-classes"):
        describe("camvid/vit_tiny", num_classes=3)
    with pytest.raises(UserError, match=r"finetune already sets --structure"):
        describe("finetune", structure="shrunk")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    words = f"{sys.executable} -m segvit.cli.main train --help"
    script = f"{words} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 141) and done.stderr == ""  # 1 is rich's own
