"""Folders of images: by two processes, killed and begun again, skipped where done, whole or not at all."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import segvit
import segvit.prediction.outputs as outputs_module
import segvit.prediction.predict_files as module
from segvit.config import EvalConfig
from segvit.errors import UserError
from segvit.models.segvit import SegViT
from segvit.prediction.inputs import find_images
from segvit.prediction.names import ASIDE, RECORD
from segvit.prediction.outputs import model_digest
from segvit.prediction.predict_files import predict_files
from segvit.weights.load import load_model
from tests.helpers.tiny import labelling_model
from tests.training.test_parallel import ENVIRONMENT, TORCHRUN

IMAGES = 200
SUFFIXES = (".png", "_overlay.png", ".json")


@pytest.fixture(scope="module")
def model() -> SegViT:
    return labelling_model(image_size=32, patch_size=8)


def write_images(folder: Path, count: int) -> Path:
    """Random images in the folder and in one below it."""
    random = np.random.default_rng(0)
    (folder / "deep").mkdir(parents=True)
    for index in range(count):
        pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(pixels).save(folder / ("deep" if index % 3 else ".") / f"{index:03}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", 6)


def times(folder: Path) -> dict[Path, int]:
    """When each file below a folder was written."""
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def complete(folder: Path) -> set[Path]:
    """Images all of whose files are there, each of which can be read."""
    done = set()
    for path in folder.rglob("*.json"):
        files = [path.with_name(path.stem + suffix) for suffix in SUFFIXES]
        if all(file.exists() for file in files):
            done.add(path.relative_to(folder).with_suffix(""))
    for path in folder.rglob("*.png"):
        Image.open(path).load()
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    return done


def kill_all(launcher: "subprocess.Popen[str]") -> None:
    """End torchrun and its processes at once; each of these has a session of its own."""
    family = psutil.Process(launcher.pid).children(recursive=True)
    launcher.kill()
    for process in family:
        process.send_signal(signal.SIGKILL)
    launcher.communicate(timeout=30)
    psutil.wait_procs(family, timeout=30)


@pytest.mark.slow
def test_two_processes_killed_and_begun_again(model: SegViT, tmp_path: Path) -> None:
    photos, seen, plain = write_images(tmp_path / "photos", IMAGES), tmp_path / "seen", tmp_path / "plain"
    model.save(tmp_path / "model.safetensors")
    words = ["predict", str(tmp_path / "model.safetensors"), str(photos), "--output", str(seen), "--device", "cpu"]
    first = subprocess.Popen(
        [*TORCHRUN, "-m", "tests.helpers.stalling", *words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 120
    while len(list(seen.rglob("*_overlay.png"))) < 60 and time.monotonic() < until and first.poll() is None:
        time.sleep(0.01)
    kill_all(first)
    done, before = complete(seen), times(seen)
    assert 60 <= len(done) <= 140

    second = subprocess.run(
        [*TORCHRUN, "-m", "segvit", *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert second.returncode == 0, second.stderr
    skipped = f"{len(done)} existed already (--overwrite computes them again)"
    said = [line for line in second.stdout.splitlines() if line]  # by one process alone
    assert said == ["computing in fp32", f"{IMAGES - len(done)} new label maps in {seen}; {skipped}"]
    after = times(seen)
    written_anew = {path for path in after if after[path] != before.get(path) and path.name != RECORD}
    names = {path.relative_to(photos).with_suffix("") for path in photos.rglob("*.png")}
    assert written_anew == {name.with_name(name.name + suffix) for name in names - done for suffix in SUFFIXES}

    assert len(predict_files(load_model(tmp_path / "model.safetensors"), [photos], plain).written) == IMAGES
    assert contents(seen) == contents(plain) and len(complete(seen)) == IMAGES
    labels = np.stack([np.asarray(Image.open(seen / name.with_suffix(".png"))) for name in sorted(names)])
    assert len(np.unique(labels)) > 4 and len(np.unique(labels, axis=0)) > IMAGES / 2  # else they tell nothing


# --- what is skipped -------------------------------------------------------------------------------------------------


def again(model: SegViT, photos: Path, seen: Path, **settings: Any) -> set[str]:
    """The images that a run computes; it skips the others."""
    done = predict_files(model, [photos], seen, **settings)
    found = find_images([photos], seen)
    assert not done.failures and len(done.written) + len(done.skipped) == len(found)
    return {path.name for path in done.written}


@pytest.mark.parametrize(
    "change",
    [
        lambda photos, seen: (seen / "000.png").unlink(),
        lambda photos, seen: (seen / "000_overlay.png").unlink(),
        lambda photos, seen: (seen / "000.json").unlink(),
        lambda photos, seen: (seen / "000.json").write_text('{"image": "000.png", "wid'),
        lambda photos, seen: Image.new("RGB", (9, 40)).save(photos / "000.png"),
        lambda photos, seen: os.utime(photos / "000.png", ns=(1, 1)),  # an older one was put back
    ],
    ids=["no label map", "no overlay", "no facts", "half the facts", "a new image", "an old image"],
)
def test_only_what_lacks_something_is_computed(
    model: SegViT, photos: Path, tmp_path: Path, change: Callable[[Path, Path], None]
) -> None:
    seen = tmp_path / "seen"
    assert len(again(model, photos, seen)) == 6
    assert again(model, photos, seen) == set()
    change(photos, seen)
    assert again(model, photos, seen) == {"000.png"}
    assert len(complete(seen)) == 6 and again(model, photos, seen) == set()


def test_new_images_join_and_another_of_the_same_name_is_refused(model: SegViT, photos: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    again(model, photos, seen)
    Image.new("RGB", (20, 20)).save(photos / "new.bmp")
    assert again(model, photos, seen) == {"new.png"}
    twin = tmp_path / "twin" / "000.png"
    twin.parent.mkdir()
    twin.write_bytes((photos / "000.png").read_bytes())
    when = (photos / "000.png").stat().st_mtime_ns
    os.utime(twin, ns=(when, when))
    before = contents(seen)
    with pytest.raises(UserError, match=rf"000\.png holds the labels of {photos / '000.png'}, and those of {twin}"):
        predict_files(model, [twin], seen)
    assert contents(seen) == before
    assert again(model, twin, seen, overwrite=True) == {"000.png"}


def test_a_folder_written_beside_its_photos_goes_on(model: SegViT, tmp_path: Path) -> None:
    for name in ("a.jpg", "deep/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    assert again(model, tmp_path, tmp_path, confidence=True) == {"a.png", "b.png"}
    (tmp_path / "a_overlay.png").unlink()
    assert again(model, tmp_path, tmp_path, confidence=True) == {"a.png"}
    Image.new("RGB", (32, 32)).save(tmp_path / "c.jpg")
    Image.new("RGB", (32, 32)).save(tmp_path / "c.png")  # a photo, for nobody has predicted c
    with pytest.raises(UserError, match=r"c\.png would both be written"):
        predict_files(model, [tmp_path], tmp_path, confidence=True)


# --- other settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"opacity": 1.0}, "opacity was 0.6 and is 1.0"),
        ({"confidence": True}, "confidence was off and is on"),
        ({"raw_ids": True}, "ids was index and is raw"),
        ({"precision": "bf16"}, "precision was fp32 and is bf16"),
        ({"config": EvalConfig(mode="whole", scales=(0.5, 1.0))}, r"scales was 1.0 and is 0.5 1.0"),
        ({"config": EvalConfig(stride=16)}, r"mode was whole and is slide; window was not set and is 32; stride"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_settings_are_refused(
    model: SegViT, photos: Path, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    seen = tmp_path / "seen"
    again(model, photos, seen)
    before = contents(seen)
    with pytest.raises(UserError, match=rf"seen holds label maps made.*{told}.*another --output, or --overwrite"):
        predict_files(model, [photos], seen, **settings)
    assert contents(seen) == before
    assert len(again(model, photos, seen, overwrite=True, **settings)) == 6
    assert again(model, photos, seen, **settings) == set()


def test_another_model_is_refused_and_the_same_under_another_name_is_not(
    model: SegViT, photos: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    again(model, photos, seen)
    model.save(tmp_path / "renamed.safetensors")
    other = load_model(tmp_path / "renamed.safetensors")
    assert model_digest(other) == model_digest(model) and again(other, photos, seen) == set()
    other.head.classifier.bias.data[3] += 1e-3
    with pytest.raises(UserError, match=rf"model was {model_digest(model)} and is {model_digest(other)}: give"):
        predict_files(other, [photos], seen)


def test_files_that_no_record_explains_are_refused(model: SegViT, photos: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    again(model, photos, seen)
    (seen / RECORD).write_text("just words")
    with pytest.raises(UserError, match=r"predict\.yaml was not written by segvit predict: give another --output"):
        predict_files(model, [photos], seen)
    (seen / RECORD).unlink()
    with pytest.raises(
        UserError, match=r"000\.json exists, and there is no .*predict\.yaml|000\.png exists, and there is no .*yaml"
    ):
        predict_files(model, [photos], seen)
    assert len(again(model, photos, seen, overwrite=True)) == 6


def test_an_overwrite_that_was_killed_leaves_nothing_old_for_new(
    model: SegViT, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says the new settings, and the files that the run did not come to are of the old ones."""
    seen = tmp_path / "seen"
    again(model, photos, seen, confidence=True)
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            predict_files(model, [photos], seen, opacity=1.0, overwrite=True)
    assert 0 < len(again(model, photos, seen, opacity=1.0)) < 6
    predict_files(model, [photos], tmp_path / "plain", opacity=1.0)
    assert contents(seen) == contents(tmp_path / "plain")  # nor is a confidence map left of the old


# --- whole or not at all ---------------------------------------------------------------------------------------------


def stop_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Interrupt the run when it has written that many files, the last of them not to its end."""
    replace, count = Path.replace, [0]

    def replace_until_then(path: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] >= number:
            raise KeyboardInterrupt
        return replace(path, target)

    patch.setattr(Path, "replace", replace_until_then)


@pytest.mark.parametrize("number", range(2, 9))
def test_stopped_at_any_file(
    model: SegViT, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    seen = tmp_path / "seen"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # a kill cleans nothing up
        stop_at(patch, number)
        with pytest.raises(KeyboardInterrupt):
            predict_files(model, [photos], seen, workers=0)
    assert list(seen.rglob("*" + ASIDE))
    done = complete(seen)
    assert len(done) == (number - 2) // 3  # after the record, three files each
    assert len(again(model, photos, seen)) == 6 - len(done)
    predict_files(model, [photos], tmp_path / "plain")
    assert contents(seen) == contents(tmp_path / "plain")


def test_a_disk_that_takes_no_more_is_told(
    model: SegViT, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    save, count = outputs_module.save_index_png, [0]

    def full(labels: Any, palette: Any, path: Path) -> None:
        count[0] += 1
        if count[0] == 3:
            path.write_bytes(b"\x89PNG")
            raise OSError(28, "No space left on device")
        save(labels, palette, path)

    monkeypatch.setattr(outputs_module, "save_index_png", full)
    with pytest.raises(UserError, match=r"cannot be written .*No space left.*run the same command again"):
        predict_files(model, [photos], seen)
    assert not list(seen.rglob("*" + ASIDE))
    assert len(again(model, photos, seen)) <= 4 and len(complete(seen)) == 6
    with pytest.raises(UserError, match=r"cannot be written .*another --output"):
        predict_files(model, [photos], photos / "000.png" / "seen")


# --- threads ---------------------------------------------------------------------------------------------------------


def spoil(photos: Path) -> None:
    for name in ("001.png", "004.png"):
        (photos / "deep" / name).write_bytes(b"no image")


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(model: SegViT, photos: Path, tmp_path: Path, workers: int) -> None:
    spoil(photos)
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    steps: list[tuple[int, int]] = []
    ours = predict_files(model, [photos], beside, workers=workers, progress=lambda *done: steps.append(done))
    theirs = predict_files(model, [photos], alone, workers=0)
    assert contents(beside) == contents(alone)
    assert ours == replace(theirs, output=beside, written=[beside / path.relative_to(alone) for path in theirs.written])
    assert [failure.path.name for failure in ours.failures] == ["001.png", "004.png"]
    assert steps == [(done, 6) for done in range(1, 7)]
    for path in ours.written:
        assert (np.asarray(Image.open(path)) == segvit.predict(model, photos / path.relative_to(beside)).labels).all()


def test_an_unforeseen_error_names_the_image(
    model: SegViT, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **settings: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "label_photo", fail)
    with pytest.raises(RuntimeError, match=r"out of memory") as caught:
        predict_files(model, [photos], tmp_path / "seen")
    assert caught.value.__notes__ == [f"while predicting {photos / '000.png'}"]


def test_processes_in_no_group_are_refused(
    model: SegViT, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 processes were started"):
        predict_files(model, [photos], tmp_path / "seen")
    assert not (tmp_path / "seen").exists()
