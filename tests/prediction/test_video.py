"""Videos: every frame labelled as `segvit.predict` does, times and counts kept, broken ones, live ones, done ones."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import segvit
import segvit.prediction.video as module
import segvit.video.writer as writer_module
from segvit.cli.main import main
from segvit.config import EvalConfig
from segvit.data.spec import load_spec
from segvit.errors import UserError
from segvit.models.segvit import SegViT
from segvit.prediction.names import ASIDE, aside
from segvit.prediction.predict_files import predict_files
from segvit.prediction.video import VideoDone, predict_video
from segvit.prediction.video_options import VideoOptions
from segvit.prediction.video_outputs import Legend
from segvit.video.address import parse_address
from segvit.video.reader import Video
from segvit.video.writer import VideoWriter
from tests.helpers.films import TURNS, Pixels, camera, decoded, moving_crop, seen_by_opencv, turn_film, write_film
from tests.helpers.tiny import labelling_model
from tests.training.test_parallel import ENVIRONMENT, TORCHRUN


@pytest.fixture(scope="module")
def model() -> SegViT:
    return labelling_model(image_size=64, patch_size=16)


@pytest.fixture(scope="module")
def photo() -> Pixels:
    """(150, 200, 3): patches of colour, for what needs no real photo."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (15, 20, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)


@pytest.fixture
def film(tmp_path: Path, photo: Pixels) -> Path:
    """Twelve frames of 96 x 80, ten a second."""
    return write_film(tmp_path / "film.mp4", moving_crop(photo, 12, (80, 96)))


def label(model: SegViT, film: Path, **settings: Any) -> VideoDone:
    """Label a video beside itself."""
    options = VideoOptions(**{name: settings.pop(name) for name in list(settings) if hasattr(VideoOptions, name)})
    return predict_video(model, film, film.with_name("seen") / film.stem, options=options, **settings)


def table(film: Path) -> list[dict[str, float]]:
    """The shares of a labelled video, frame by frame."""
    with (film.parent / "seen" / f"{film.stem}_shares.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def facts(film: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((film.parent / "seen" / f"{film.stem}_video.json").read_text())
    return content


def label_maps(film: Path) -> dict[int, Pixels]:
    """The label maps of `--frames`, by the number of their frame."""
    found = sorted((film.parent / "seen" / f"{film.stem}_frames").iterdir())
    return {int(path.stem): np.asarray(Image.open(path)) for path in found}


# --- a whole video ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """300 frames of 640 x 480, 30 a second: a moving crop of six photos of CamVid."""
    photos = sorted((shared_data / "camvid" / "images" / "val").iterdir())[:6]
    pictures = [
        picture
        for path in photos
        for picture in moving_crop(np.asarray(Image.open(path).convert("RGB").resize((690, 530))), 50, (480, 640))
    ]
    return write_film(tmp_path_factory.mktemp("street") / "street.mp4", pictures, rate=30, time_base=Fraction(1, 30))


def check_street(street: Path, done: VideoDone, size: tuple[int, int]) -> None:
    assert done == VideoDone(path=done.path, frames=300, dropped=0, damaged=0, first_damaged=None, broken=None)
    pictures, times = seen_by_opencv(done.path)
    assert len(pictures) == 300 and pictures[0].shape[1] >= size[1] and pictures[0].shape[0] > size[0]
    assert times == pytest.approx([number / 30 for number in range(300)], abs=1e-3)
    rows = table(street)
    assert [row["frame"] for row in rows] == list(range(300))
    assert [row["seconds"] for row in rows] == pytest.approx(times, abs=1e-3)
    names = load_spec("shapes").classes
    assert all(sum(row[name] for name in names) == pytest.approx(1, abs=1e-5) for row in rows)
    told = facts(street)
    assert told["decoded"] == told["labelled"] == 300 and (told["height"], told["width"]) == size
    means = {name: np.mean([row[name] for row in rows]) for name in names}
    assert told["shares"] == pytest.approx({name: mean for name, mean in means.items() if mean}, abs=1e-5)
    content = done.path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays while it is still being fetched
    with av.open(str(done.path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 30)
        assert float(stream.duration * stream.time_base) == pytest.approx(10, abs=1e-3)


def test_300_frames_of_a_street(model: SegViT, street: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    done = label(model, street, resize=96, progress=lambda *step: steps.append(step))
    check_street(street, done, (72, 96))
    assert steps == [(count, 300) for count in range(1, 301)]


@pytest.mark.slow
def test_300_frames_of_a_street_at_full_size(model: SegViT, street: Path) -> None:
    check_street(street, label(model, street, frames=True), (480, 640))
    pictures, maps = decoded(street), label_maps(street)
    for number in (0, 7, 123, 299):
        assert (maps[number] == segvit.predict(model, pictures[number]).labels).all()


@pytest.fixture(scope="module")
def corners(street: Path) -> list[Pixels]:
    """Five pictures of the street, 104 x 78."""
    return [np.asarray(Image.fromarray(picture).resize((104, 78))) for picture in decoded(street)[::60]]


PROTOCOLS = {
    "whole": EvalConfig(mode="whole"),
    "whole, in threes": EvalConfig(mode="whole", batch_size=3),
    "one by one": EvalConfig(mode="whole", batch_size=1),
    "windows of two frames": EvalConfig(window=64, stride=40, batch_size=9),
    "windows of one frame": EvalConfig(window=64, stride=40, batch_size=3),
    "scales": EvalConfig(mode="whole", scales=(0.5, 1.3), flip=True),
    "scaled windows": EvalConfig(window=64, stride=32, scales=(0.8, 1.0), flip=True, batch_size=16),
    "resized": EvalConfig(mode="whole", resize_short=60),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_labels_are_those_of_predict(
    model: SegViT, corners: list[Pixels], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, batches = PROTOCOLS[name], []
    film = write_film(tmp_path / "street.mp4", corners)
    forward = SegViT.forward

    def counting(self: SegViT, images: Any, *arguments: Any, **settings: Any) -> Any:
        batches.append(len(images))
        return forward(self, images, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(SegViT, "forward", counting)
        label(model, film, config=config, frames=True)
    assert max(batches) == {"whole": 5, "whole, in threes": 3, "one by one": 1, "windows of two frames": 8}.get(
        name, max(batches)
    )
    assert max(batches) <= config.batch_size
    maps, rows = label_maps(film), table(film)
    assert list(maps) == [0, 1, 2, 3, 4]
    for number, picture in enumerate(decoded(film)):
        expected = segvit.predict(model, picture, config=config).labels
        assert (maps[number] == expected).all() and len(np.unique(expected)) > 2
        for index, share in enumerate(np.bincount(expected.ravel(), minlength=8) / expected.size):
            assert rows[number][load_spec("shapes").classes[index]] == pytest.approx(share, abs=1e-6)


def test_the_overlay_is_that_of_predict(model: SegViT, film: Path) -> None:
    for legend in (True, False):
        done = label(model, film, legend=legend)
        pictures, _ = seen_by_opencv(done.path)
        assert (pictures[0].shape == (80, 96, 3)) is not legend
        for picture, shown in zip(decoded(film), pictures, strict=True):
            wanted = np.asarray(segvit.predict(model, picture).overlay(legend=False)).astype(int)
            difference = np.abs(shown[:80, :96] - wanted)
            assert difference.mean() < 14  # colour at half the size, and compressed
            assert np.abs(shown[:80, :96].mean(axis=(0, 1)) - wanted.mean(axis=(0, 1))).max() < 2  # no tint


def test_threads_change_nothing(model: SegViT, film: Path) -> None:
    contents, movies = [], []
    for workers in (0, 1, 3):
        label(model, film, workers=workers, frames=True, confidence=True)
        files = sorted(path for path in (film.parent / "seen").rglob("*") if path.is_file())
        contents.append([(path, path.read_bytes()) for path in files if path.suffix != ".mp4"])
        movies.append([np.stack(decoded(path)).astype(int) for path in files if path.suffix == ".mp4"])
    assert contents[0] == contents[1] == contents[2] and len(contents[0]) == 2 + 12
    for others in movies[1:]:  # once in a hundred times x264 writes the same pictures a trifle differently
        assert all(np.abs(one - other).max() < 8 for one, other in zip(movies[0], others, strict=True))


# --- times and sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_frame_rate_is_kept(model: SegViT, tmp_path: Path, photo: Pixels, suffix: str) -> None:
    times = [0, 40, 80, 200, 201, 500, 900, 2000, 2040, 2500]
    film = write_film(tmp_path / f"film{suffix}", moving_crop(photo, 10, (64, 64)), times=times)
    done = label(model, film)
    with av.open(str(done.path)) as file:
        seen = [frame.time for frame in file.decode(video=0)]
        length = float(file.streams.video[0].duration * file.streams.video[0].time_base)
    assert seen == pytest.approx([time / 1000 for time in times], abs=1e-6)
    assert [row["seconds"] for row in table(film)] == pytest.approx(seen, abs=1e-6)
    assert length == pytest.approx(2.6, abs=0.01)  # the last for as long as the file says
    assert seen_by_opencv(done.path)[1] == pytest.approx(seen, abs=2e-3)


def test_every_third_frame_at_its_own_time(model: SegViT, film: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    done = label(model, film, every=5, frames=True, progress=lambda *step: steps.append(step))
    assert done.frames == 3 and steps == [(1, 3), (2, 3), (3, 3)]
    assert seen_by_opencv(done.path)[1] == pytest.approx([0, 0.5, 1.0], abs=1e-3)
    with av.open(str(done.path)) as file:  # as long as the film
        assert float(file.streams.video[0].duration * file.streams.video[0].time_base) == pytest.approx(1.2, abs=0.01)
    assert [(row["frame"], row["seconds"]) for row in table(film)] == [(0, 0), (5, 0.5), (10, 1)]
    assert facts(film)["decoded"] == 12 and facts(film)["every"] == 5
    pictures, maps = decoded(film), label_maps(film)
    assert list(maps) == [0, 5, 10]
    assert all((maps[number] == segvit.predict(model, pictures[number]).labels).all() for number in maps)


@pytest.mark.parametrize("seconds, frames", [(0.05, 1), (0.35, 4), (0.4, 4), (99, 12)])
def test_seconds_end_a_video(model: SegViT, film: Path, seconds: float, frames: int) -> None:
    done = label(model, film, seconds=seconds)
    assert done.frames == frames == len(decoded(done.path)) and done.broken is None


@pytest.mark.parametrize("size", [(81, 97), (1, 33), (64, 17)])
def test_odd_sides_are_padded(model: SegViT, tmp_path: Path, photo: Pixels, size: tuple[int, int]) -> None:
    film = write_film(tmp_path / "odd.mp4", moving_crop(photo, 3, size))
    for legend in (False, True):
        done = label(model, film, legend=legend, frames=True)
        pictures = seen_by_opencv(done.path)[0]
        assert len(pictures) == 3 and not any(side % 2 for side in pictures[0].shape[:2])
        assert {labels.shape for labels in label_maps(film).values()} == {size}
        if not legend:
            assert pictures[0].shape[:2] == tuple(side + side % 2 for side in size)


@pytest.mark.parametrize("turn", TURNS)
def test_phone_videos_are_shown_upright(model: SegViT, tmp_path: Path, photo: Pixels, turn: str) -> None:
    film = write_film(tmp_path / "phone.mp4", moving_crop(photo, 2, (64, 112)))
    turn_film(film, TURNS[turn])
    upright = {
        "as it is": lambda stored: stored,
        "clockwise": lambda stored: np.rot90(stored, -1),
        "upside down": lambda stored: np.rot90(stored, 2),
        "anticlockwise": np.rot90,
        "mirrored": lambda stored: stored[:, ::-1],
        "mirrored, clockwise": lambda stored: np.rot90(stored[::-1], -1),
    }[turn]
    expected = [np.ascontiguousarray(upright(stored)) for stored in decoded(film)]
    done = label(model, film, legend=False, opacity=0.0, frames=True)
    shown = seen_by_opencv(done.path)[0]
    theirs = seen_by_opencv(film)[0]  # OpenCV turns as well
    for number, picture in enumerate(expected):
        assert shown[number].shape == picture.shape
        assert (label_maps(film)[number] == segvit.predict(model, picture).labels).all()
        if "mirrored" not in turn:  # which it passes over
            # 8 to 20 levels by OpenCV's version; a picture that is turned in another way is 75 away.
            assert np.abs(shown[number].astype(int) - theirs[number]).mean() < 40
            assert np.abs(theirs[number].astype(int) - picture).mean() < 40


def test_pixels_that_are_not_square_are_made_so(model: SegViT, tmp_path: Path, photo: Pixels) -> None:
    film = write_film(tmp_path / "tv.mp4", moving_crop(photo, 2, (80, 96)), aspect=Fraction(3, 2))
    label(model, film)
    assert (facts(film)["height"], facts(film)["width"]) == (80, 144)


def test_resize_is_the_longer_side_and_never_enlarges(model: SegViT, tmp_path: Path, photo: Pixels) -> None:
    film = write_film(tmp_path / "film.mp4", moving_crop(photo, 2, (128, 64)))
    for side, size in ((64, (64, 32)), (33, (33, 17)), (500, (128, 64))):
        done = label(model, film, resize=side, legend=False, frames=True)
        assert {labels.shape for labels in label_maps(film).values()} == {size}
        assert seen_by_opencv(done.path)[0][0].shape[:2] == tuple(side + side % 2 for side in size)


# --- what is broken --------------------------------------------------------------------------------------------------


def cut(path: Path, place: int) -> None:
    path.write_bytes(path.read_bytes()[:place])


def spoil(path: Path, place: int) -> None:
    """Let 3000 bytes be of something else."""
    content = bytearray(path.read_bytes())
    content[place : place + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name, settings, damage",
    [
        ("film.mp4", {"options": {"movflags": "faststart"}}, cut),
        ("film.mkv", {}, cut),
        ("film.webm", {"codec": "libvpx"}, cut),
        ("film.avi", {"codec": "mpeg4"}, cut),
        ("film.mp4", {"preset": "veryfast"}, spoil),  # frames come in another order than they are stored
    ],
    ids=["cut mp4", "cut mkv", "cut webm", "cut avi", "spoilt mp4"],
)
def test_a_broken_file_says_where_and_keeps_what_came_before(
    model: SegViT, tmp_path: Path, name: str, settings: dict[str, Any], damage: Callable[[Path, int], None]
) -> None:
    random = np.random.default_rng(1)  # noise, so that each frame takes bytes
    film = write_film(
        tmp_path / name, [random.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(40)], **settings
    )
    with av.open(str(film)) as file:
        packets = [(one.pos, one.pos + one.size, one.pts) for one in file.demux(video=0) if one.size]
    place = int(film.stat().st_size * 0.6)
    if damage is spoil:
        place = min(start for start, _, _ in packets if start >= place)  # where it is sure to be noticed
    damage(film, place)
    done = label(model, film)
    assert 15 < done.frames <= 31 and done.broken is not None
    assert done.broken.startswith(f"broke at frame {done.frames}"), done.broken
    if film.suffix == ".mp4":  # none is lost that a decoder's threads held
        first = min(pts for _, end, pts in packets if end > place)
        assert (done.frames, done.damaged) == (sum(pts < first for _, _, pts in packets), 0)
    assert facts(film)["broken"] == done.broken
    pictures = seen_by_opencv(done.path)[0]
    assert len(pictures) == done.frames == len(table(film))

    seen = tmp_path / "files"
    first = predict_files(model, [film], seen)
    assert [video.frames for video in first.videos] == [done.frames]
    again = predict_files(model, [film], seen)  # is not done anew, and told of again
    assert not again.videos and again.skipped_videos == [seen / "film_overlay.mp4"]
    assert again.video_failures == first.video_failures
    (failure,) = again.video_failures
    assert failure.reason.startswith(f"{film}: broke at frame {done.frames}") and "film_overlay.mp4" in failure.reason


def write_sound(path: Path) -> None:
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    path.with_suffix(".wav").rename(path)


def write_no_frames(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        file.start_encoding()


def write_strange_codec(path: Path) -> None:
    write_film(path, [np.zeros((64, 64, 3), dtype=np.uint8)] * 3)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))


def write_without_index(path: Path) -> None:
    write_film(path, [np.zeros((64, 64, 3), dtype=np.uint8)] * 3)
    cut(path, path.stat().st_size // 2)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("no film" * 99), r"cannot be opened as a video \(Invalid data"),
    "empty": (lambda path: path.write_bytes(b""), r"cannot be opened as a video \(Invalid data.*convert it"),
    "sound": (write_sound, r"holds only audio and no pictures"),
    "no frames": (write_no_frames, r"holds no picture that can be decoded \(no frames\)|holds nothing readable"),
    "codec": (write_strange_codec, r"PyAV does not know the codec of its pictures; convert it"),
    "no index": (write_without_index, r"holds nothing readable; .*was cut off has no index"),
    "playlist": (
        lambda path: path.write_text("#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"),
        r"cannot be opened as a video \(Invalid data",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_video_is_told_and_the_others_are_done(model: SegViT, film: Path, kind: str) -> None:
    write, told = UNREADABLE[kind]
    bad = film.with_name("bad.mp4")
    write(bad)
    with pytest.raises(UserError, match=rf"bad\.mp4: {told}"):
        label(model, bad)
    done = predict_files(model, [film.parent], film.parent / "seen")
    assert [video.frames for video in done.videos] == [12]
    assert [failure.path for failure in done.video_failures] == [bad]
    assert not list((film.parent / "seen").glob("bad*"))


def test_pyav_is_an_extra(model: SegViT, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"film\.mp4: videos need av .*pip install 'segvit\[video\]'"):
        predict_files(model, [film], film.parent / "seen")


@pytest.mark.parametrize("room", [100, 3000])
def test_a_full_disk_is_told(model: SegViT, film: Path, room: int) -> None:
    """The system refuses to let files grow, at once or while the index is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        with pytest.raises(UserError, match=r"film: cannot be written .*File too large.*make room"):
            label(model, film)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((film.parent / "seen").iterdir())


def test_pictures_that_h264_does_not_take(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "wide.mp4", size=(16, 20_000), time_base=Fraction(1, 10), rate=Fraction(10))
    with pytest.raises(UserError, match=r"H\.264 cannot encode pictures of 20000 x 16 .*--resize 1920"), writer:
        writer.write(np.zeros((16, 20_000, 3), dtype=np.uint8), 0)


def test_a_build_without_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "ENCODER", "libx999")
    with pytest.raises(UserError, match=r"has no H\.264 encoder .*--force-reinstall av"):
        VideoWriter(tmp_path / "x.mp4", size=(16, 16), time_base=Fraction(1, 10), rate=Fraction(10))


@pytest.mark.parametrize("number", [1, 5])
def test_a_run_that_is_stopped_leaves_nothing_half_done(
    model: SegViT, film: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    count = []

    def stop(done: int, total: int | None) -> None:
        count.append(done)
        if len(count) == number:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(model, film, progress=stop, frames=True)
    assert not list((film.parent / "seen").iterdir())


# --- done, and not done ----------------------------------------------------------------------------------------------


def again(model: SegViT, film: Path, **settings: Any) -> int:
    """How many videos a run over a folder labels."""
    return len(predict_files(model, [film.parent], film.parent / "seen", **settings).videos)


@pytest.mark.parametrize(
    "change",
    [
        lambda seen, film: (seen / "film_overlay.mp4").unlink(),
        lambda seen, film: (seen / "film_shares.csv").unlink(),
        lambda seen, film: (seen / "film_video.json").unlink(),
        lambda seen, film: (seen / "film_video.json").write_text("{"),
        lambda seen, film: (
            [path.unlink() for path in (seen / "film_frames").iterdir()][:0] or (seen / "film_frames").rmdir()
        ),
        lambda seen, film: os.utime(film, ns=(1, 1)),
    ],
    ids=["overlay", "shares", "facts", "half the facts", "frames", "another film"],
)
def test_what_is_done_is_skipped(model: SegViT, film: Path, change: Callable[[Path, Path], object]) -> None:
    options = VideoOptions(frames=True, every=6)
    assert again(model, film, video=options) == 1
    assert again(model, film, video=options) == 0
    change(film.parent / "seen", film)
    assert again(model, film, video=options) == 1
    assert again(model, film, video=options) == 0
    assert again(model, film, video=options, overwrite=True) == 1
    assert len(list((film.parent / "seen" / "film_frames").iterdir())) == 2


def test_a_foretaste_becomes_the_whole(model: SegViT, film: Path) -> None:
    assert again(model, film, video=VideoOptions(seconds=0.2)) == 1 and len(table(film)) == 2
    assert again(model, film) == 1 and len(table(film)) == 12
    assert again(model, film) == 0


@pytest.mark.parametrize(
    "options, told",
    [
        (VideoOptions(every=2), "every was not set and is 2"),
        (VideoOptions(resize=64), "resize was not set and is 64"),
        (VideoOptions(frames=True), "frames was not set and is on"),
        (VideoOptions(legend=False), "legend was not set and is off"),
    ],
)
def test_other_options_are_refused(model: SegViT, film: Path, options: VideoOptions, told: str) -> None:
    again(model, film)
    with pytest.raises(UserError, match=rf"made with other settings: {told}: give another --output, or --overwrite"):
        again(model, film, video=options)
    assert again(model, film, video=options, overwrite=True) == 1


def test_photos_and_videos_in_one_folder(model: SegViT, film: Path, photo: Pixels) -> None:
    folder = film.parent
    (folder / "deep").mkdir()
    film.rename(folder / "deep" / "IMG_1.MOV")
    Image.fromarray(photo).save(folder / "deep" / "IMG_1.jpg")  # as phones save them
    write_film(folder / "b.webm", [photo] * 2, codec="libvpx")
    Image.fromarray(photo).save(folder / "c.png")
    (folder / "notes.txt").write_text("")
    (folder / "._b.webm").write_bytes(b"left by another system")
    seen = folder / "seen"
    done = predict_files(model, [folder], seen)
    assert done.written == [seen / "c.png", seen / "deep" / "IMG_1.png"]
    assert [(video.path, video.frames) for video in done.videos] == [
        (seen / "b_overlay.mp4", 2),
        (seen / "deep" / "IMG_1_overlay.mp4", 12),
    ]
    then = predict_files(model, [folder], seen)
    assert (then.written, then.videos) == ([], [])
    assert (len(then.skipped), len(then.skipped_videos)) == (2, 2)


def test_a_folder_written_beside_its_videos_goes_on(model: SegViT, film: Path) -> None:
    options = VideoOptions(frames=True)
    for films in (1, 0):
        done = predict_files(model, [film.parent], film.parent, video=options, confidence=True)
        assert len(done.videos) == films and not done.written and not done.skipped
    with pytest.raises(UserError, match=r"film_overlay\.mp4 is an input and an output would replace it"):
        predict_files(model, [film, film.parent / "film_overlay.mp4"], film.parent, video=options, confidence=True)


def test_what_would_be_written_twice_says_what_helps(model: SegViT, film: Path, photo: Pixels) -> None:
    folder = film.parent
    other = folder / "other"
    other.mkdir()
    (other / "film.mp4").write_bytes(film.read_bytes())
    with pytest.raises(
        UserError, match=r"as film_overlay\.mp4: give them to two commands with different --output, or rename one"
    ):
        predict_files(model, [film, other / "film.mp4"], folder / "seen")
    (folder / "film.mkv").write_bytes(film.read_bytes())
    with pytest.raises(UserError, match=r"film\.mkv and .*film\.mp4 would .* as film_overlay\.mp4: rename one of them"):
        predict_files(model, [folder], folder / "seen")
    (folder / "film.mkv").unlink()
    for name in ("photo.jpg", "photo.png"):
        Image.fromarray(photo).save(folder / name)
    with pytest.raises(
        UserError, match=r"photo\.png would .* as photo\.png: rename one of them, or move it to another"
    ):
        predict_files(model, [folder / "photo.jpg", folder / "photo.png"], folder / "seen")
    (folder / "photo.png").rename(folder / "photo_overlay.png")
    with pytest.raises(UserError, match=r"photo\.jpg and .*photo_overlay\.png would both .*: rename one of them"):
        predict_files(model, [folder / "photo.jpg", folder / "photo_overlay.png"], folder / "seen")


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, told",
    [
        (VideoOptions(every=0), r"--every 0: give 1 for all"),
        (VideoOptions(resize=4), r"--resize 4: give the longer side in pixels, 16 or more"),
        (VideoOptions(seconds=0.0), r"--seconds 0: give a number above 0"),
        (
            VideoOptions(every=3, frames=True, legend=False, seconds=2),
            r"--every 3, --frames, --no-legend, --seconds 2: ",
        ),
    ],
)
def test_options_that_make_no_sense(
    model: SegViT, tmp_path: Path, photo: Pixels, options: VideoOptions, told: str
) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=told):
        predict_files(model, [tmp_path / "photo.png"], tmp_path / "seen", video=options)
    assert not (tmp_path / "seen").exists()


def test_raw_ids_and_confidence(model: SegViT, film: Path) -> None:
    with pytest.raises(UserError, match=r"--ids raw: videos get label maps only with --frames"):
        again(model, film, raw_ids=True)
    assert again(model, film, raw_ids=True, confidence=True, video=VideoOptions(frames=True, legend=False)) == 1
    raw = np.array(model.spec.raw_ids)  # type: ignore[union-attr]
    grey = seen_by_opencv(film.parent / "seen" / "film_confidence.mp4")[0]
    for number, picture in enumerate(decoded(film)):
        result = segvit.predict(model, picture, confidence=True)
        assert (label_maps(film)[number] == raw[result.labels]).all()
        assert result.confidence is not None
        assert np.abs(grey[number].mean(axis=2) - 255 * result.confidence).mean() < 4
    assert len(grey) == 12


@pytest.mark.parametrize("classes", [1, 8, 24, 25, 150])
def test_a_legend_keeps_its_height(classes: int) -> None:
    random, height = np.random.default_rng(0), set()
    names = [f"class number {index}" for index in range(classes)]
    palette = [tuple(int(part) for part in random.integers(0, 256, 3)) for _ in range(classes)]
    legend = Legend(200, names, palette)  # type: ignore[arg-type]
    for present in {1, classes // 2 + 1, classes}:
        fractions = np.zeros(classes)
        fractions[:present] = 1 / present
        picture = random.integers(0, 256, (50, 200, 3), dtype=np.uint8)
        shown = legend.below(picture, fractions)
        assert (shown[:50, :200] == picture).all() and (shown[50:] != 255).any()
        height.add(shown.shape)
    assert len(height) == 1
    assert height.pop()[0] < 50 + (24 * 24 + 20 if classes <= 24 else 100)
    assert (legend.below(np.zeros((50, 200, 3), dtype=np.uint8), np.full(classes, 1e-4))[50:] != 255).any()


def test_files_are_on_the_disk_before_they_take_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: said.append("flushed") or fsync(handle))
    monkeypatch.setattr(Path, "replace", lambda path, to: said.append("named") or replace(path, to))
    with aside(tmp_path / "file") as place:
        place.write_bytes(b"content")
    assert said == ["flushed", "named"] and (tmp_path / "file").read_bytes() == b"content"
    with pytest.raises(KeyError), aside(tmp_path / "folder") as place:
        place.mkdir()
        (place / "inside").write_bytes(b"")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- live ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, url, name",
    [
        ("rtsp://me:pass@cam.local:554/live/1?key=2", None, "rtsp://cam.local:554/live/1"),
        ("https://host/a.mp4", None, "https://host/a.mp4"),
        ("webcam:0", "/dev/video0", "webcam:0"),
        ("webcam:/dev/v4l/by-id/usb", "/dev/v4l/by-id/usb", "webcam:/dev/v4l/by-id/usb"),
    ],
)
def test_addresses(text: str, url: str | None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    address = parse_address(text)
    assert address is not None and (address.url, address.name) == (url or text, name)
    assert address.stem and not set(address.stem) & set("/:?@")


def test_files_are_no_addresses_and_cameras_have_numbers_or_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("clip.mp4", "a/b.mp4", "C:\\clips\\a.mp4", "rtsp:/x", Path("rtsp://x")):
        assert parse_address(text) is None
    with pytest.raises(UserError, match=r"webcam:: no camera given; type webcam:0"):
        parse_address("webcam:")
    for system, given, url, kind in (
        ("Darwin", "webcam:1", "1", "avfoundation"),
        ("Windows", "webcam:Cam", "video=Cam", "dshow"),
    ):
        monkeypatch.setattr("platform.system", lambda system=system: system)
        address = parse_address(given)
        assert address is not None and (address.url, address.format) == (url, kind)
    with pytest.raises(UserError, match=r"webcam:0: no camera given; type webcam: and .* webcam:Integrated Camera"):
        parse_address("webcam:0")


def test_a_camera_that_is_not_there(model: SegViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    done = predict_files(model, ["webcam:77"], tmp_path)
    (failure,) = done.video_failures
    assert failure.reason.startswith("webcam:77: cannot be opened as a video (No such file or directory); check")
    monkeypatch.setattr("platform.system", lambda: "Windows")
    with pytest.raises(UserError, match=r"webcam:Cam: this build of PyAV cannot read cameras"):
        predict_files(model, ["webcam:Cam"], tmp_path)
    address = "rtsp://me:secret@127.0.0.1:9/live"
    (failure,) = predict_files(model, [address], tmp_path).video_failures
    assert failure.reason.startswith("rtsp://127.0.0.1:9/live: cannot be opened") and "secret" not in failure.reason
    with pytest.raises(UserError, match=r"rtsp://127\.0\.0\.1:9/live: a webcam or stream must be the only input"):
        predict_files(model, [address, tmp_path], tmp_path)


def slow_down(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the model take so long for a frame, at least."""
    batch_labels = module.batch_labels

    def slowly(*arguments: Any) -> Any:
        threading.Event().wait(seconds)
        return batch_labels(*arguments)

    patch.setattr(module, "batch_labels", slowly)


def check_recording(folder: Path, frames: int) -> tuple[list[Pixels], list[float], dict[str, Any]]:
    """A recording is whole, and tells no password."""
    (path,) = folder.glob("127.0.0.1_*_door_*_overlay.mp4")
    pictures, times = seen_by_opencv(path)
    assert len(pictures) == frames and not list(folder.glob(f"*{ASIDE}"))
    for file in folder.rglob("*"):
        assert b"secret" not in file.read_bytes() and "secret" not in file.name
    (json_file,) = folder.glob("*_video.json")
    return pictures, times, json.loads(json_file.read_text())


def test_a_live_source_drops_frames_rather_than_lag(
    model: SegViT, tmp_path: Path, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(monkeypatch, 0.2)
    with camera(photo, rate=30) as address:
        done = predict_files(model, [address], tmp_path, video=VideoOptions(seconds=1.5, legend=False), opacity=0.0)
    (video,) = done.videos
    pictures, times, told = check_recording(tmp_path, video.frames)
    assert 2 <= video.frames <= 10 and video.dropped > video.frames and not done.video_failures
    assert told["dropped"] == video.dropped and told["video"].endswith("/door")
    numbers = [round(picture[4:12, 4:12].mean() / 4) for picture in pictures]
    assert all(np.diff(numbers)[:-1] > 0) and all(np.diff(times)[:-1] > 0.1)  # the last may come early
    assert numbers[-1] > 3 * len(numbers) and numbers[-1] > told["decoded"] - 20  # the newest, at each time


def test_a_signal_ends_a_stream_and_keeps_it(model: SegViT, tmp_path: Path, photo: Pixels) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stop(done: int, total: int | None) -> None:
        assert total is None
        if done == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with camera(photo) as address:
        done = predict_video(model, address, tmp_path / "127.0.0.1_1_door_1", progress=stop)
    assert done.broken is None and 6 <= done.frames <= 12
    check_recording(tmp_path, done.frames)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stream_that_hangs_up_is_kept(model: SegViT, tmp_path: Path, photo: Pixels) -> None:
    with camera(photo, frames=20) as address:
        done = predict_files(model, [address], tmp_path)
        (video,) = done.videos
        assert 5 <= video.frames <= 20 and video.frames + video.dropped >= 19
        check_recording(tmp_path, video.frames)
    (failure,) = done.video_failures  # nobody asked it to
    assert "/door: broke at frame 20" in failure.reason and "secret" not in failure.reason


def test_a_stream_that_breaks_is_kept_and_told(
    model: SegViT, tmp_path: Path, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    demux = Video._decode

    def break_off(video: Video) -> Any:
        for number, frame in enumerate(demux(video)):
            if number == 8:
                video.broken = "broke at frame 8, after 0.30 s: Connection reset by peer"
                return
            yield frame

    monkeypatch.setattr(Video, "_decode", break_off)
    with camera(photo) as address:
        done = predict_files(model, [address], tmp_path)
    (failure,) = done.video_failures
    assert "/door: broke at frame 8" in failure.reason and "Connection reset" in failure.reason
    check_recording(tmp_path, done.videos[0].frames)


# --- the command line ------------------------------------------------------------------------------------------------


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["segvit", *map(str, words)])
    code: object = 0
    try:
        main()
    except SystemExit as leave:
        code = leave.code or 0
    said = capsys.readouterr()
    return int(str(code)), said.out, said.err


def test_the_command(
    model: SegViT, film: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, seen = film.parent / "model.safetensors", film.parent / "seen"
    model.save(file)
    words: list[object] = ["predict", file, film, "--output", seen, "--device", "cpu", "--every", 4, "--no-legend"]
    code, out, err = command(monkeypatch, capsys, *words)
    assert code == 0 and not err
    assert [line for line in out.splitlines() if line] == [
        "computing in fp32",
        f"{seen / 'film_overlay.mp4'}: 3 frames labelled",
    ]
    code, out, err = command(monkeypatch, capsys, *words)
    assert code == 0 and "1 video existed already (--overwrite computes them again)" in out
    film.with_name("bad.mp4").write_bytes(b"bad")
    code, out, err = command(monkeypatch, capsys, *words, film.with_name("bad.mp4"))
    assert code == 2 and "1 video could not be read to the end:" in err and "bad.mp4: cannot be opened" in err


MEMORY = """
import resource, sys
from pathlib import Path
from segvit.prediction.video import predict_video
from segvit.weights.load import load_model
model = load_model(sys.argv[1])
for film in sys.argv[2:]:
    predict_video(model, film, Path(film).with_name("seen"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in kB, as Linux does")
def test_memory_does_not_grow_with_the_length(model: SegViT, tmp_path: Path, photo: Pixels) -> None:
    """One process labels 40 frames and then 400: ten times as many, whose pixels alone are 30 MB."""
    model.save(tmp_path / "model.safetensors")
    films = [write_film(tmp_path / f"{count}.mp4", moving_crop(photo, count, (144, 176))) for count in (40, 400)]
    words = [sys.executable, "-c", MEMORY, str(tmp_path / "model.safetensors"), *map(str, films)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    short, long = map(int, done.stdout.split())
    assert long - short < 12_000


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_at_a_signal(model: SegViT, tmp_path: Path, photo: Pixels, number: signal.Signals) -> None:
    model.save(tmp_path / "model.safetensors")
    with camera(photo) as address:
        words = ["-m", "segvit", "predict", str(tmp_path / "model.safetensors"), address, "--output"]
        process = subprocess.Popen(
            [sys.executable, *words, str(tmp_path / "seen")],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 60
        while not list((tmp_path / "seen").glob(f".*{ASIDE}")) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(3)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (frames,) = re.findall(r"(\d+) frames labelled", out)
    check_recording(tmp_path / "seen", int(frames))


@pytest.mark.slow
def test_two_processes_share_videos_whole(model: SegViT, film: Path) -> None:
    model.save(film.parent / "model.safetensors")
    for name in "abc":
        (film.parent / f"{name}.mp4").write_bytes(film.read_bytes())
    film.with_name("bad.mp4").write_bytes(b"no film")
    words = ["predict", str(film.parent / "model.safetensors"), str(film.parent), "--output", str(film.parent / "seen")]
    done = subprocess.run(
        [*TORCHRUN, "-m", "segvit", *words, "--device", "cpu"], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode != 0 and "1 video could not be read to the end" in done.stderr
    assert done.stdout.count("12 frames labelled") == 4
    for name in ("a", "b", "c", "film"):
        assert len(seen_by_opencv(film.parent / "seen" / f"{name}_overlay.mp4")[0]) == 12
    then = predict_files(model, [film.parent], film.parent / "seen")
    assert len(then.skipped_videos) == 4 and len(then.video_failures) == 1
