"""The check of a dataset, in Python and as `segvit check-data`: what it finds, shows and says to type."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageOps

from segvit.cli import main as cli
from segvit.config import DataConfig
from segvit.data.check.check import check_dataset
from segvit.data.check.fixes import command, data_flags
from segvit.data.check.report import check_splits
from segvit.data.check.scan import TURN
from segvit.data.dataset import open_dataset
from segvit.data.images import read_image, read_size
from segvit.data.labels.index import read_labels
from segvit.data.palette import default_palette
from segvit.errors import UserError
from segvit.pictures.sample_sheet import choose


def folders(root: Path, labels: dict[str, tuple[int, ...]]) -> DataConfig:
    """Pairs of 6 x 4 pixels whose label maps hold these values in turn."""
    for name, values in labels.items():
        for folder in ("photos", "masks"):
            (root / folder).mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(root / "photos" / f"{name}.jpg")
        numbers = np.array(values, dtype=np.uint8)[np.arange(24) % len(values)].reshape(4, 6)
        Image.fromarray(numbers).save(root / "masks" / f"{name}.png")
    return DataConfig(images=root / "photos", labels=root / "masks", classes=("a", "b"), val_fraction=0)


def test_a_limited_check_looks_at_evenly_spaced_pairs(tmp_path: Path) -> None:
    samples = open_dataset(folders(tmp_path, {f"{i}": (0, 1) if i < 6 else (0, 9) for i in range(8)}), "train")
    assert check_dataset(samples, limit=1).errors == ()
    report = check_dataset(samples, limit=4)  # pairs 0, 2, 4 and 6
    assert (report.checked, report.total) == (4, 8)
    assert [found.files for found in report.unknown] == [(str(tmp_path / "masks" / "6.png"),)]
    assert check_dataset(samples, limit=100).checked == 8


def test_label_maps_of_one_class_are_listed(tmp_path: Path) -> None:
    config = folders(tmp_path, {"a": (0, 1), "b": (0, 255), "c": (255,), "d": (1,)})
    report = check_dataset(open_dataset(config, "train"))
    assert report.errors == ()
    assert report.uniform == tuple(str(tmp_path / "masks" / f"{name}.png") for name in "bcd")


def test_a_picture_beyond_the_limit_of_pillow_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folders(tmp_path, {"a": (0, 1)})
    assert config.images is not None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # the file has 24; Pillow refuses at twice the limit
    assert config.labels is not None
    assert read_image(config.images / "a.jpg").size == (6, 4) and read_size(config.images / "a.jpg") == (4, 6)
    assert read_labels(config.labels / "a.png").shape == (4, 6)
    assert not check_dataset(open_dataset(config, "train"), decode=True).errors
    assert Image.MAX_IMAGE_PIXELS == 10  # as the rest of the program has it


# --- segvit check-data -----------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """What a command left: exit code, and the two streams."""

    code: int
    out: str
    err: str

    @property
    def next(self) -> list[str]:
        """The words of the command that it says to type."""
        return shlex.split(self.out.splitlines()[-1])[1:]


Command = Callable[..., Said]


@pytest.fixture
def segvit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: Any) -> Said:
        monkeypatch.setattr("sys.argv", ["segvit", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = int(leave.code or 0)
        return Said(code, *capsys.readouterr())

    return run


class Set:
    """Twelve pairs of 30 x 20 pixels under `photos` and `masks`, whose masks hold 0 and 1, to be spoilt."""

    def __init__(self, root: Path) -> None:
        self.root, self.photos, self.masks = root, root / "photos", root / "masks"
        self.photos.mkdir()
        self.masks.mkdir()
        self.names = [f"{number:02}" for number in range(12)]
        for number, name in enumerate(self.names):
            noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(noise).save(self.photos / f"{name}.png")
            self.mask(np.arange(600).reshape(20, 30) % 2, name)

    def mask(self, values: Any, *names: str) -> None:
        """Write this mask under these names; none: all."""
        for name in names or self.names:
            Image.fromarray(np.asarray(values).astype(np.uint8)).save(self.masks / f"{name}.png")

    @property
    def flags(self) -> list[str]:
        return ["--data.images", str(self.photos), "--data.labels", str(self.masks), "--data.classes", "sky", "road"]


@pytest.fixture
def files(tmp_path: Path) -> Set:
    return Set(tmp_path)


def test_a_good_set_ends_with_how_to_train(files: Set, segvit: Command) -> None:
    said = segvit("check-data", *files.flags)
    assert said.code == 0 and not said.err and "warning" not in said.out
    assert "Ready to train. Run:" in said.out and "all 30 x 20 (width x height); 11 landscape" in said.out
    command, bound, _ = cli.app.parse_args(said.next, exit_on_error=False, print_error=False)
    assert command.__name__ == "train" and bound.arguments["settings"].data.classes == ("sky", "road")


def test_everything_is_in_the_json(files: Set, segvit: Command) -> None:
    files.mask(np.full((20, 30), 255), "04")
    path = files.root / "new" / "report.json"
    assert segvit("check-data", *files.flags, "--json", path).code == 0
    content = json.loads(path.read_text())
    assert (
        content["fit"] and content["splits"].keys() == {"train", "val"} and content["next"].startswith("segvit train")
    )
    values = {row["value"]: row for split in content["splits"].values() for row in split["values"]}
    assert [values[value]["becomes"] for value in (0, 1, 255)] == ["sky", "road", "(ignored)"]
    assert sum(split["pairs"] for split in content["splits"].values()) == 12
    kinds = {(found["split"], found["kind"]) for found in content["findings"]}
    assert any(kind == "uniform" for _, kind in kinds)


def test_orphans_are_all_counted_and_the_rest_is_checked(files: Set, segvit: Command) -> None:
    for name in files.names[:7]:
        (files.masks / f"{name}.png").unlink()
    (files.photos / "11.png").unlink()
    files.mask(np.eye(20, 30) * 9, "10")
    said = segvit("check-data", *files.flags, "--json", files.root / "r.json")
    assert said.code == 1 and said.err.count("error:") == 2
    assert "7 images without labels" in said.err and "00.png" in said.err and "1 label without an image" in said.err
    assert "label value 9" in said.err  # found in what is complete
    orphans = json.loads((files.root / "r.json").read_text())["orphans"]["train"]
    assert len(orphans["images"]) == 7 and orphans["labels"] == [str(files.masks / "11.png")]
    (files.photos / "12.png").write_bytes((files.photos / "00.png").read_bytes())
    for path in files.masks.iterdir():
        path.rename(path.with_name(f"x{path.name}"))  # no pair is complete: nothing to check
    said = segvit("check-data", *files.flags)
    assert said.code == 2 and "images without a label map" in said.err


def test_names_in_a_list_without_a_file(files: Set, segvit: Command) -> None:
    spec = files.root / "mine.yaml"
    spec.write_text(
        "name: mine\nclasses: [sky, road]\nsplits:\n"
        "  train: {images: photos, labels: masks, list: train.txt}\n  val: {images: photos, labels: masks, list: v.txt}"
    )
    (files.root / "train.txt").write_text("00\n01\nlost\n")
    said = segvit("check-data", "--data.spec", spec, "--data.root", files.root)
    assert said.code == 1 and "lost" in said.err and "train: mine: all 2 pairs" in said.out
    assert "val cannot be opened" in said.err and "v.txt" in said.err
    (files.root / "v.txt").write_text("02\n")
    (files.root / "train.txt").write_text("00\n01\n")
    assert segvit(*said.next).code == 0


def test_a_0_255_mask_ends_with_the_command_that_fixes_it(files: Set, segvit: Command) -> None:
    files.mask(np.eye(20, 30) * 255)
    for extra in ([], ["--data.empty-ignore"]):
        said = segvit("check-data", *files.flags, *extra)
        assert said.code == 1 and "0/255" in said.err
        assert "sky=0" in said.next and "road=255" in said.next
        fixed = segvit(*said.next)
        assert fixed.code == 0 and "Ready to train" in fixed.out


def test_a_0_255_mask_with_soft_edges_is_no_class_more(files: Set, segvit: Command) -> None:
    values = np.tile([0, 255], (20, 15))
    values[3, :4] = 1, 254, 1, 254  # what compression leaves of 0 and 255
    files.mask(values)
    said = segvit("check-data", *files.flags)
    assert said.code == 1 and "soft" in said.err and "255 * (value > 127)" in said.err
    assert "--data.ignore" not in said.next  # to ignore 254 would take noise, the ones, for the class
    for path in files.masks.iterdir():
        with Image.open(path) as mask:
            hard = mask.point(lambda value: 255 * (value > 127))
        hard.save(path)
    assert "road=255" in segvit(*said.next).next


def test_as_many_values_as_classes_are_taken_in_order(files: Set, segvit: Command) -> None:
    files.mask(np.tile([0, 128, 255], (20, 10)))
    said = segvit("check-data", *files.flags, "traffic light")
    assert said.code == 1 and "'traffic light=255'" in said.err  # as a shell takes it
    assert said.next[-3:] == ["sky=0", "road=128", "traffic light=255"]
    fixed = segvit(*said.next)
    assert fixed.code == 0 and "warning" not in fixed.out
    files.mask(np.tile([0, 7], (20, 15)))
    assert segvit("check-data", *files.flags).next[-2:] == ["sky=0", "road=7"]


def test_no_setting_fixes_what_leaves_one_class(files: Set, segvit: Command) -> None:
    files.mask(np.tile([0, 70, 80], (20, 10)))
    assert "--data.ignore" not in segvit("check-data", *files.flags).next


def test_label_maps_as_jpeg(files: Set, segvit: Command) -> None:
    for name in files.names[:3]:
        (files.masks / f"{name}.png").rename(files.masks / f"{name}.JPG")
    said = segvit("check-data", *files.flags)
    assert said.code == 1 and "3 images without labels" in said.err and "3 label maps are JPEG" in said.err
    for path in files.masks.glob("*.png"):
        path.rename(path.with_suffix(".jpeg"))
    said = segvit("check-data", *files.flags)
    assert said.code == 2 and "12 label maps are JPEG" in said.err and "save(FILE_AS_PNG)" in said.err
    both = ["--data.images", files.root / "both" / "*.jpg", "--data.labels", files.root / "both" / "*.png"]
    (files.root / "both").mkdir()
    for photo in ("a.jpg", "b.jpg", "c.jpg"):
        Image.new("RGB", (30, 20)).save(files.root / "both" / photo)
    for mask in ("a.png", "b.png"):
        Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(files.root / "both" / mask)
    said = segvit("check-data", *both, *files.flags[4:])
    assert said.code == 1 and "1 image without labels" in said.err and "JPEG" not in said.err  # c.jpg is the photo


@pytest.mark.parametrize("lowest", [0, 1])
def test_labels_off_by_one(lowest: int, files: Set, segvit: Command) -> None:
    files.mask(lowest + np.arange(600).reshape(20, 30) % (3 - lowest))
    said = segvit("check-data", *files.flags)
    assert said.code == 1 and "label value 2" in said.err and "sky=1" in said.next and "road=2" in said.next
    fixed = segvit(*said.next)
    assert fixed.code == 0 and "sky" in fixed.out


def test_labels_one_too_small_for_their_spec(files: Set, segvit: Command) -> None:
    spec = files.root / "mine.yaml"
    spec.write_text(
        "name: mine\nclasses: [{name: a, raw: 1}, {name: b, raw: 2}, {name: c, raw: 3}]\nignore: [0]\n"
        "splits:\n  train: {images: photos, labels: masks}\nval_fraction: 0.2"
    )
    flags = ["--data.spec", spec, "--data.root", files.root]
    files.mask(np.arange(600).reshape(20, 30) % 3)
    said = segvit("check-data", *flags)
    assert said.code == 0 and "may be one too small" in said.out and "{name: a, raw: 0}" in said.out
    files.mask(np.arange(600).reshape(20, 30) % 4)
    assert "too small" not in segvit("check-data", *flags).out


def test_a_strange_value(files: Set, segvit: Command) -> None:
    files.mask(np.eye(20, 30) * 7, "05")
    said = segvit("check-data", *files.flags)
    assert said.code == 1 and "(unknown)" in said.out and "05.png" in said.err
    assert said.next[-3:] == ["--data.ignore", "255", "7"]
    assert segvit(*said.next).code == 0


def test_masks_painted_in_colours_and_the_spec_that_reads_them(
    files: Set, segvit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    colors = np.array([[70, 130, 180], [0, 0, 142], [9, 9, 9]], dtype=np.uint8)
    for name in files.names:
        Image.fromarray(colors[np.arange(600).reshape(20, 30) % 3]).save(files.masks / f"{name}.png")
    said = segvit("check-data", *files.flags, "--split", "train")
    assert said.code == 1 and "3 channels" in said.err and "11 label maps" in said.err
    text = said.err[said.err.index("name: painted") :].rstrip()
    assert "[70, 130, 180]" in text
    (files.root / "painted.yaml").write_text(text)
    monkeypatch.chdir(files.root)
    fixed = segvit("check-data", "--data.spec", "painted.yaml", "--data.root", ".")
    assert fixed.code == 0 and "all 11 pairs" in fixed.out and "class_3" in fixed.out


def test_grey_saved_as_rgb(files: Set, segvit: Command) -> None:
    files.mask(np.stack([np.eye(20, 30)] * 3, axis=-1), "02")
    said = segvit("check-data", *files.flags)
    assert said.code == 1 and "getchannel(0)" in said.err and "name: painted" not in said.err


def turn(files: Set, name: str, orientation: int) -> None:
    """Give a photo an EXIF orientation."""
    path = files.photos / f"{name}.png"
    with Image.open(path) as photo:
        exif = photo.getexif()
        exif[0x0112] = orientation
        photo.save(path, exif=exif)


def test_a_photo_that_exif_turns_beside_a_mask_that_it_does_not(files: Set, segvit: Command) -> None:
    turn(files, "04", 6)
    said = segvit("check-data", *files.flags)
    assert said.code == 1 and "EXIF orientation (6) to 20 x 30" in said.err and "ROTATE_270" in said.err
    with Image.open(files.masks / "04.png") as mask:
        upright = mask.transpose(Image.Transpose.ROTATE_270)
    upright.save(files.masks / "04.png")
    said = segvit("check-data", *files.flags)
    assert said.code == 0 and "EXIF" not in said.out and "1 portrait" in said.out
    turn(files, "05", 3)  # upside down: sizes cannot tell
    sheet = files.root / "sheet.png"
    said = segvit("check-data", *files.flags, "--sheet", sheet)
    assert said.code == 0 and "1 photo has an EXIF orientation" in said.out and "05.png" in said.out


def test_an_orientation_that_is_none(files: Set, segvit: Command) -> None:
    for name in files.names:
        Image.new("RGB", (20, 20), (9, 9, int(name))).save(files.photos / f"{name}.png")
        files.mask(np.eye(20), name)
        turn(files, name, 0)  # as some cameras write
    assert "EXIF" not in segvit("check-data", *files.flags).out
    turn(files, "03", 8)
    assert "1 photo has an EXIF orientation" in segvit("check-data", *files.flags).out


def test_files_that_cannot_be_written_are_told_before_the_work(files: Set, segvit: Command) -> None:
    (files.root / "taken").write_text("")
    for flag, path in (("--sheet", "taken/x.png"), ("--json", "taken/x.json"), ("--json", "photos")):
        said = segvit("check-data", *files.flags, flag, files.root / path)
        assert said.code == 2 and said.err.startswith("error: ") and "pairs checked" not in said.out


@pytest.mark.parametrize("orientation", range(2, 9))
def test_what_is_said_to_turn_a_mask_is_what_exif_does(orientation: int) -> None:
    stored = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = stored.getexif()
    exif[0x0112] = orientation
    shown = np.asarray(ImageOps.exif_transpose(stored))
    if orientation in TURN:
        assert (np.asarray(stored.transpose(Image.Transpose[TURN[orientation]])) == shown).all()
    else:
        assert shown.shape == (2, 3)


def test_the_same_picture_in_train_and_val(files: Set, segvit: Command) -> None:
    val = files.root / "val"
    for folder in ("photos", "masks"):
        shutil.copytree(files.root / folder, val / folder)
    for number, path in enumerate(sorted((val / "photos").iterdir())):
        if number < 3:  # one the same, one renamed, one saved anew without loss
            continue
        fresh = np.random.default_rng(100 + number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(fresh).save(path)  # the same name is no copy
    for folder in ("photos", "masks"):
        (val / folder / "01.png").rename(val / folder / "renamed.png")
    with Image.open(val / "photos" / "02.png") as picture:
        picture.convert("RGB").save(val / "photos" / "02.bmp")
    (val / "photos" / "02.png").unlink()
    flags = ["--data.val-images", val / "photos", "--data.val-labels", val / "masks"]
    said = segvit("check-data", *files.flags, *flags)
    assert said.code == 0 and "3 images are in train and in val" in said.out and "renamed.png" in said.out
    assert "are in train and in val" not in segvit("check-data", *files.flags, *flags, "--split", "val").out
    shutil.copy(files.photos / "05.png", files.photos / "06.png")
    assert "train: 1 image is in the data again under another name" in segvit("check-data", *files.flags, *flags).out


def test_the_sheet_shows_labels_over_photos(files: Set, segvit: Command) -> None:
    for name in files.names:
        Image.new("RGB", (300, 200), (128, 128, 128)).save(files.photos / f"{name}.png")
        files.mask(np.where(np.arange(300) < 150, 0, 1) * np.ones((200, 1)), name)
    files.mask(np.full((200, 300), 9), "03")
    sheet = files.root / "new" / "sheet.png"
    said = segvit("check-data", *files.flags, "--sheet", sheet)
    assert said.code == 1 and str(sheet) in said.out  # a sheet helps with what is wrong
    with Image.open(sheet) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
        assert opened.width > 4 * 300 and opened.height > 3 * 200
    sky, road = (np.array(color) for color in default_palette(2))
    for color in (sky, road):
        mixed = (0.6 * color + 0.4 * 128).round()
        assert (np.abs(pixels - mixed).max(axis=-1) < 12).mean() > 0.05
    assert segvit("check-data", *files.flags, "--sheet", "x.txt").code == 2


def test_rare_classes_come_first_on_the_sheet(tmp_path: Path) -> None:
    labels = {f"{i:03}": (0,) for i in range(100)} | {"041": (0, 1)}
    report = check_dataset(open_dataset(folders(tmp_path, labels), "train"))
    places = [index for _, index in choose({"train": report})]
    assert len(places) == 12 and places == sorted(set(places)) and 41 in places
    assert min(places) < 15 and max(places) > 85  # spread over the set
    assert len(choose({"train": report}, count=200)) == 100


def test_progress_runs_over_both_splits(files: Set) -> None:
    config = DataConfig(images=files.photos, labels=files.masks, classes=("sky", "road"))
    calls: list[tuple[int, int]] = []
    check_splits(config, ["train", "val"], progress=lambda *done: calls.append(done))
    assert calls == [(done, 12) for done in range(1, 13)]


def test_flags_give_the_settings_back() -> None:
    config = DataConfig(
        spec="a b.yaml", root=Path("x y"), classes=("a", "it's=3"), ignore=(), val_fraction=0.25, train_list=Path("t")
    )
    words = shlex.split(command("check-data", config))[1:]
    _, bound, _ = cli.app.parse_args(words, exit_on_error=False, print_error=False)
    assert bound.arguments["data"] == config
    assert data_flags(DataConfig()) == []


# --- one class, one folder -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, classes, fixed",
    [
        ((0, 255), ["box"], ["background=0", "box=255"]),
        ((0, 1), ["box"], ["background=0", "box=1"]),
        ((0, 1, 255), ["box"], ["background=0", "box=1"]),  # 255 is ignored, as by default
        ((0, 1), ["ground,box"], ["ground", "box"]),
        ((0, 255), ["ground, box"], ["ground=0", "box=255"]),
        ((0, 7), ["background"], ["background=0", "thing=7"]),
    ],
)
def test_a_single_class_leaves_nothing_to_learn(
    values: tuple[int, ...], classes: list[str], fixed: list[str], files: Set, segvit: Command
) -> None:
    files.mask(np.array(values)[np.arange(600).reshape(20, 30) % len(values)])
    said = segvit("check-data", *files.flags[:4], "--data.classes", *classes)
    assert said.code == 1 and "only class, so there is nothing to learn" in said.err and "Not ready" in said.out
    assert ("separate class names by blanks" in said.err) == ("," in classes[0])
    assert said.next[-len(fixed) :] == fixed
    again = segvit(*said.next)
    assert again.code == 0 and "Ready to train" in again.out
    config = DataConfig(images=files.photos, labels=files.masks, classes=tuple(classes), val_fraction=0)
    with pytest.raises(UserError, match="nothing to learn"):
        check_dataset(open_dataset(config, "train")).raise_on_error()


def test_a_single_class_that_no_setting_mends(files: Set, segvit: Command) -> None:
    files.mask(np.tile([0, 70, 80], (20, 10)))
    said = segvit("check-data", *files.flags[:4], "--data.classes", "box")
    assert said.code == 1 and "the label maps hold 0, 70, 80: give each value a class" in said.err
    spec = files.root / "mine.yaml"
    spec.write_text("name: mine\nclasses: [box]\nothers: ignore\nsplits: {train: {images: photos, labels: masks}}\n")
    said = segvit("check-data", "--data.spec", spec, "--data.root", files.root, "--split", "train")
    assert said.code == 1 and "add a class for the rest to the spec, such as background" in said.err


def test_photos_and_masks_in_one_folder(files: Set, segvit: Command) -> None:
    both = files.root / "both"
    both.mkdir()
    for name in files.names:
        Image.open(files.photos / f"{name}.png").save(both / f"{name}.jpg")
        (files.masks / f"{name}.png").rename(both / f"{name}.png")
    said = segvit("check-data", "--data.images", both, "--data.labels", both, *files.flags[4:])
    globs = f"--data.images '{both}/*.jpg' --data.labels '{both}/*.png'"
    assert said.code == 2 and f"separate them by globs: {globs}" in said.err and "keep one" not in said.err
    typed = shlex.split(globs)
    assert segvit("check-data", *typed, *files.flags[4:]).code == 0
    (files.photos / "extra").mkdir()
    Image.new("RGB", (30, 20)).save(files.photos / "00.jpg")
    said = segvit("check-data", *files.flags)
    assert "keep one of them, or choose by a glob, such as --data.images" in said.err and "/*.jpg'" in said.err
