"""Datasets from archives: the true layouts, resuming after a kill, and archives that mean harm."""

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segvit.cli import main as cli
from segvit.data.dataset import open_dataset
from segvit.data.prepare.archives import unpack
from segvit.data.prepare.datasets import RECIPES, prepare_dataset
from segvit.errors import UserError

Files = dict[str, bytes]


def picture(mode: str = "RGB", suffix: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (6, 4)).save(buffer, suffix)
    return buffer.getvalue()


PHOTO, MASK = picture(), picture("L", "PNG")


def write_zip(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in sorted({str(Path(name).parent) for name in files}):
            archive.writestr(f"{folder}/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def lists(folder: str, train: str, val: str) -> Files:
    return {f"{folder}/{train}": b"a\nb\n", f"{folder}/{val}": b"c\n"}


def ade20k(folder: Path) -> None:
    files: Files = {"ADEChallengeData2016/objectInfo150.txt": b"x", "__MACOSX/._x": b"x"}
    for split, names in (("training", "ab"), ("validation", "c")):
        for name in names:
            files[f"ADEChallengeData2016/images/{split}/ADE_{name}.jpg"] = PHOTO
            files[f"ADEChallengeData2016/annotations/{split}/ADE_{name}.png"] = MASK
    write_zip(folder / "ADEChallengeData2016.zip", files)


def coco_stuff(folder: Path, *, top: str = "") -> None:
    files = lists(f"{top}imageLists", "train.txt", "test.txt")
    for name in "abc":
        files |= {f"{top}images/{name}.jpg": PHOTO, f"{top}annotations/{name}.mat": b"unread"}
    write_zip(folder / "cocostuff-10k-v1.1.zip", files)


def pascal_context(folder: Path) -> None:
    files = lists("VOCdevkit/VOC2010/ImageSets/Main", "train.txt", "val.txt")
    files |= {f"VOCdevkit/VOC2010/JPEGImages/{name}.jpg": PHOTO for name in "abcd"}
    write_tar(folder / "VOCtrainval_03-May-2010.tar", files)
    write_tar(folder / "trainval.tar.gz", {f"trainval/{name}.mat": b"unread" for name in "abc"})


def cityscapes(folder: Path) -> None:
    photos: Files = {"README": b"one", "license.txt": b"1"}
    labels: Files = {"README": b"two.", "license.txt": b"1"}
    for split, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        for name in names:
            photos[f"leftImg8bit/{split}/town/town_{name}_leftImg8bit.png"] = picture(suffix="PNG")
            for kind in ("labelIds", "instanceIds", "color"):
                labels[f"gtFine/{split}/town/town_{name}_gtFine_{kind}.png"] = MASK
            labels[f"gtFine/{split}/town/town_{name}_gtFine_polygons.json"] = b"{}"
    write_zip(folder / "leftImg8bit_trainvaltest.zip", photos)
    write_zip(folder / "gtFine_trainvaltest.zip", labels)


def pascal_voc(folder: Path) -> None:
    files = lists("VOCdevkit/VOC2012/ImageSets/Segmentation", "train.txt", "val.txt")
    for name in "abcd":
        files[f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg"] = PHOTO
        files[f"VOCdevkit/VOC2012/SegmentationClass/{name}.png"] = MASK
    write_tar(folder / "VOCtrainval_11-May-2012.tar", files)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "ade20k": ade20k,
    "coco_stuff_10k": coco_stuff,
    "pascal_context_59": pascal_context,
    "pascal_context_60": pascal_context,
    "cityscapes": cityscapes,
    "pascal_voc_2012": pascal_voc,
}


def test_every_recipe_has_a_layout_here() -> None:
    assert LAYOUTS.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_unpacked_so_that_the_spec_finds_its_files(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    calls: list[tuple[int, int]] = []
    prepared = prepare_dataset(name, tmp_path, progress=lambda *done: calls.append(done))
    assert prepared.complete and prepared.pairs == {"train": 2, "val": 1}
    assert len(open_dataset(prepared.config, "train")) == 2 and len(open_dataset(prepared.config, "val")) == 1
    assert calls[-1][0] == calls[-1][1] and all(done.kept == 0 for done in prepared.unpacked.values())
    train, val = RECIPES[name].counts
    assert f"differs from the official {train:,}" in prepared.text and f"{val:,}" in prepared.text
    *_, last = prepared.text.splitlines()
    command, bound, _ = cli.app.parse_args(shlex.split(last)[1:], exit_on_error=False, print_error=False)
    assert command.__name__ == "check_data" and bound.arguments["data"].root == prepared.config.root
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".partial") or "MACOSX" in str(path)]

    again = prepare_dataset(name, tmp_path)
    assert all(done.written == 0 and done.kept for done in again.unpacked.values())
    for recipe in RECIPES[name].archives:
        (tmp_path / recipe.name).unlink()
    assert prepare_dataset(name, tmp_path).pairs == prepared.pairs  # archives may go


def test_a_folder_around_the_archive_is_found(tmp_path: Path) -> None:
    coco_stuff(tmp_path, top="cocostuff-10k-v1.1/")
    prepared = prepare_dataset("coco_stuff_10k", tmp_path)
    assert prepared.config.root == tmp_path / "cocostuff-10k-v1.1" and prepared.pairs == {"train": 2, "val": 1}


def test_archives_that_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "fetched").mkdir()
    ade20k(tmp_path / "fetched")
    other = (tmp_path / "fetched" / "ADEChallengeData2016.zip").rename(tmp_path / "fetched" / "x.zip")
    assert prepare_dataset("ade20k", tmp_path / "data", archives=[other]).complete
    pascal_context(tmp_path / "fetched")
    given = [tmp_path / "fetched" / archive.name for archive in RECIPES["pascal_context_59"].archives]
    assert prepare_dataset("pascal_context_59", tmp_path / "context", archives=given).complete
    renamed = [path.rename(path.with_name(f"{number}.bin")) for number, path in enumerate(given)]
    with pytest.raises(UserError, match=r"0\.bin: unknown name"):
        prepare_dataset("pascal_context_59", tmp_path / "third", archives=renamed)
    with pytest.raises(UserError, match=r"lost\.zip: no such file"):
        prepare_dataset("ade20k", tmp_path, archives=[tmp_path / "lost.zip"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_missing_is_named_with_its_home_page(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepare_dataset(name, tmp_path / "nowhere")
    for archive in RECIPES[name].archives:
        assert f"{archive.name} from {archive.page}" in str(caught.value)


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'ade20k'"):
        prepare_dataset("ade20", tmp_path)


@pytest.mark.slow
def test_killed_half_way_and_run_again(tmp_path: Path) -> None:
    files: Files = {}
    noise = np.random.default_rng(0)
    for number in range(400):
        split = "training" if number < 300 else "validation"
        files[f"ADEChallengeData2016/images/{split}/{number:04}.jpg"] = noise.bytes(150_000)
        files[f"ADEChallengeData2016/annotations/{split}/{number:04}.png"] = MASK
    write_zip(tmp_path / "ADEChallengeData2016.zip", files)
    words = [sys.executable, "-m", "segvit.cli.main", "data", "prepare", "ade20k", "--root", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    unpacked = tmp_path / "ADEChallengeData2016" / "images" / "training"
    deadline = time.monotonic() + 60
    while process.poll() is None and len(list(unpacked.glob("*.jpg"))) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in unpacked.glob("*.jpg")}
    assert 20 <= len(before) < 400
    assert all(path.read_bytes() == files[path.relative_to(tmp_path).as_posix()] for path in before)  # none is half
    victim, cut = sorted(before)[:2]
    victim.unlink()
    cut.write_bytes(b"short")  # as a full disk or another tool may leave it
    (unpacked / "0399.jpg.partial").write_bytes(b"left by the kill")

    prepared = prepare_dataset("ade20k", tmp_path)
    assert prepared.complete and prepared.pairs == {"train": 300, "val": 100}
    done = prepared.unpacked["ADEChallengeData2016.zip"]
    assert done.kept >= len(before) - 2 and done.kept + done.written == len(files)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items() if path not in (victim, cut))
    for name, content in files.items():
        assert (tmp_path / name).read_bytes() == content


def test_the_command_line_says_what_came_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cityscapes(tmp_path)
    cli.app(["data", "prepare", "cityscapes", "--root", str(tmp_path)])
    said = capsys.readouterr().out
    assert "train: 2 pairs, which differs from the official 2,975" in said
    assert f"segvit check-data --data.spec cityscapes --data.root {tmp_path}" in said.splitlines()[-1]
    shutil.rmtree(tmp_path / "gtFine")
    (tmp_path / "gtFine_trainvaltest.zip").unlink()
    with pytest.raises(UserError, match=r"gtFine_trainvaltest\.zip from https"):
        cli.app(["data", "prepare", "cityscapes", "--root", str(tmp_path)])


def test_an_archive_with_less_in_it_than_its_spec_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pascal_context(tmp_path)
    write_tar(tmp_path / "trainval.tar.gz", {"trainval/a.mat": b"x"})
    with pytest.raises(SystemExit) as left:
        cli.app(["data", "prepare", "pascal_context_59", "--root", str(tmp_path)])
    said = capsys.readouterr().out
    assert left.value.code == 1 and "train: 1 file without a partner" in said and "b.jpg" in said
    assert f"segvit data prepare pascal_context_59 --root {tmp_path}" in said.splitlines()[-1]


# --- archives that mean harm, or are damaged -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "a\\..\\evil.txt", "C:/evil.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_lead_out_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    write = write_zip if kind == "zip" else write_tar
    archive = tmp_path / f"bad.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("good.txt", b"x")
            opened.writestr(name, b"x")
    else:
        write(archive, {"good.txt": b"x", name: b"x"})
    with pytest.raises(UserError, match="leads out of the folder"):
        unpack(archive, tmp_path / "into" / "deep")
    assert not list(tmp_path.rglob("*.txt")) and not Path("/evil.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, "zip"])
def test_links_and_devices_are_refused(kind: str | bytes, tmp_path: Path) -> None:
    archive = tmp_path / "bad"
    if isinstance(kind, str):
        with zipfile.ZipFile(archive, "w") as opened:
            info = zipfile.ZipInfo("link")
            info.external_attr = 0o120777 << 16
            opened.writestr(info, "/etc")
            opened.writestr("link/x.txt", b"x")
    else:
        with tarfile.open(archive, "w") as opened_tar:
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = kind, "/etc"
            opened_tar.addfile(entry)
    with pytest.raises(UserError, match=r"is a link|is not a file"):
        unpack(archive, tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_archives_cut_short_or_damaged(name: str, tmp_path: Path) -> None:
    files = {f"a/{number}.bin": np.random.default_rng(number).bytes(20_000) for number in range(5)}
    archive = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name, files)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{name}: .*download it again"):
        unpack(archive, tmp_path / "into")
    archive.write_bytes(b"<html>no such page</html>")
    with pytest.raises(UserError, match="not a zip or tar"):
        unpack(archive, tmp_path / "into")
    if name == "x.zip":
        place = whole.index(files["a/3.bin"][:50]) + 9000
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(UserError, match="damaged"):
            unpack(archive, tmp_path / "into")
        assert not (tmp_path / "into" / "a" / "3.bin").exists()


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_zip(tmp_path / "x.zip", {"a.bin": bytes(1000)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=999))
    with pytest.raises(UserError, match="free some space"):
        unpack(archive, tmp_path / "into")
    assert not (tmp_path / "into" / "a.bin").exists()
