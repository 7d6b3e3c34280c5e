"""GeoTIFF in, GeoTIFF out: labels, place on the map, pixels without data, polygons, and resuming after a kill."""

import json
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segvit
from segvit.cli.main import main
from segvit.config import ModelConfig
from segvit.data.bands.raster import open_raster
from segvit.data.bands.reading import Reading
from segvit.errors import UserError
from segvit.prediction.predict_files import predict_files
from segvit.prediction.scenes import predict_scene as scenes
from segvit.prediction.scenes.row_log import RowLog

rasterio = pytest.importorskip("rasterio")
features_of = pytest.importorskip("rasterio.features")
HEIGHT, WIDTH = 70, 90
BLOCK = 16


@pytest.fixture
def model() -> segvit.SegViT:
    """A model of four bands in which many classes win somewhere."""
    torch.manual_seed(0)
    spec = replace(segvit.load_spec("camvid"), bands=("red", "green", "blue", "nir"), white=4095)
    config = ModelConfig(embed_dim=32, depth=2, num_heads=2, taps=(0, 1), class_token=False, init_std=0.3)
    model = segvit.create_model("vit_tiny_patch16_224", spec=spec, image_size=32, config=config)
    with torch.no_grad():
        model.head.classifier.weight[:-1] = model.head.class_tokens
        for stage in model.head.stages:
            stage.layers[-1].cross_attn.q.weight.normal_(std=1.0)
    return model.eval()


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene of four bands of 12 bits, 10 m a pixel, without data in one corner."""
    values = np.random.default_rng(0).integers(1, 4000, (4, HEIGHT // 10, WIDTH // 10), np.uint16)
    values = values.repeat(10, axis=1).repeat(10, axis=2)
    values[:, :20, :30] = 0
    path = tmp_path / "scene.tif"
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)}
    form = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 4, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", **form, **place) as target:
        target.write(values)
    return path


def test_a_scene_gets_a_geotiff_in_its_place(model: segvit.SegViT, scene: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    done = predict_files(model, [scene], seen, write=("geojson",), workers=0)
    assert done.written == [seen / "scene_labels.tif"] and not done.failures
    assert sorted(path.name for path in seen.iterdir()) == [
        "predict.yaml", "scene.json", "scene_labels.tif", "scene_polygons.geojson",
    ]  # fmt: skip
    with rasterio.open(scene) as source, rasterio.open(seen / "scene_labels.tif") as written:
        assert (written.crs, written.transform, written.shape) == (source.crs, source.transform, source.shape)
        assert written.nodata == 255 and written.compression.name == "deflate"
        assert written.colormap(1)[1][:3] == model.spec.palette[1]
        labels = written.read(1)
    expected = segvit.predict(model, scene).labels
    assert (labels[:20, :30] == 255).all()
    known = labels != 255
    assert known.sum() == HEIGHT * WIDTH - 600 and (labels == expected)[known].all() and len(np.unique(labels)) > 3
    _check_polygons(seen / "scene_polygons.geojson", labels, model.classes)
    shares = json.loads((seen / "scene.json").read_text())["shares"]
    assert sum(shares.values()) == pytest.approx(known.mean())
    again = predict_files(model, [scene], seen, write=("geojson",), workers=0)
    assert again.skipped == done.written and not again.written


def _check_polygons(path: Path, labels: Any, classes: tuple[str, ...]) -> None:
    """Check that the polygons, filled by rasterio, are the label map."""
    content = json.loads(path.read_text())
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    features = content["features"]
    shapes = [(feature["geometry"], feature["properties"]["label"]) for feature in features]
    place = rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)
    filled = features_of.rasterize(shapes, out_shape=labels.shape, fill=255, transform=place)
    assert (filled == labels).all()
    for feature in features:
        outer, *holes = (np.array(ring) for ring in feature["geometry"]["coordinates"])
        areas = [_signed_area(ring) for ring in (outer, *holes)]
        assert areas[0] > 0 and all(area < 0 for area in areas[1:])
        assert feature["properties"]["area"] == pytest.approx(sum(areas))
        assert feature["properties"]["class"] == classes[feature["properties"]["label"]]


def _signed_area(ring: Any) -> float:
    """Area of a closed ring, positive if it runs counter-clockwise."""
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def test_blocks_of_polygons_cover_the_map(
    model: segvit.SegViT, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "BLOCK", BLOCK)
    monkeypatch.setattr(scenes, "TRACED_SIDE", 2 * BLOCK)
    scenes.predict_scene(model, scene, tmp_path / "seen" / "scene", fingerprint="f", polygons=True)
    with rasterio.open(tmp_path / "seen" / "scene_labels.tif") as written:
        labels = written.read(1)
    _check_polygons(tmp_path / "seen" / "scene_polygons.geojson", labels, model.classes)


def test_a_killed_run_resumes_after_its_last_row(
    model: segvit.SegViT, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "BLOCK", BLOCK)
    whole, cut, calls = tmp_path / "whole" / "scene", tmp_path / "cut" / "scene", []
    scenes.predict_scene(model, scene, whole, fingerprint="f")

    def stop(done: int, total: int | None) -> None:
        calls.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scenes.predict_scene(model, scene, cut, fingerprint="f", progress=stop)
    log = tmp_path / "cut" / "scene_labels.rows"
    assert log.is_file() and not (tmp_path / "cut" / "scene_labels.tif").exists()
    log.write_bytes(log.read_bytes() + b"a record that was cut sho")
    done = scenes.predict_scene(model, scene, cut, fingerprint="f", progress=lambda *count: calls.append(count))
    assert done.resumed_rows == 2 and calls == [(number, 5) for number in range(1, 6)] and not log.exists()
    with rasterio.open(tmp_path / "cut" / "scene_labels.tif") as one, rasterio.open(f"{whole}_labels.tif") as other:
        assert (one.read(1) == other.read(1)).all()


def test_decoded_blocks_are_kept(scene: Path) -> None:
    """Neighbouring windows share blocks, and decoding one takes longer than reading a window from memory."""
    whole = slice(0, HEIGHT), slice(0, WIDTH)
    with open_raster(scene, Reading(bands=4, white=4095)) as raster:
        first = raster.read(*whole)
        size = scene.stat().st_size
        with scene.open("r+b") as file:
            file.write(bytes(size))
        assert raster.read(*whole).equal(first) and first.max() > 0.9


def test_rows_of_other_settings_are_not_resumed(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.rows", np.arange(12, dtype=np.uint16).reshape(3, 4)
    with RowLog.open(path, "one") as log:
        log.append(rows)
        log.append(rows[:1] + np.uint16(300))
    with RowLog.open(path, "one") as log:
        assert log.count == 2 and (log.read(1) == rows[:1] + 300).all() and (log.read(0) == rows).all()
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with RowLog.open(path, "one") as log:
        assert log.count == 1
    with RowLog.open(path, "other") as log:
        assert log.count == 0


def test_raw_ids_are_written_with_a_free_nodata(model: segvit.SegViT, scene: Path, tmp_path: Path) -> None:
    raw = tuple(range(300, 311))
    plain, other = tmp_path / "plain" / "scene", tmp_path / "raw" / "scene"
    scenes.predict_scene(model, scene, plain, fingerprint="f")
    scenes.predict_scene(model, scene, other, fingerprint="f", raw_ids=raw)
    with rasterio.open(f"{plain}_labels.tif") as one, rasterio.open(f"{other}_labels.tif") as two:
        assert two.dtypes == ("uint16",) and two.nodata == 255
        expected = np.where(one.read(1) == 255, 255, one.read(1).astype(int) + 300)
        assert (two.read(1) == expected).all()


def test_other_bands_and_impossible_protocols_are_refused(
    model: segvit.SegViT, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(embed_dim=32, depth=2, num_heads=2, taps=(0, 1), bands=2)
    other = segvit.create_model("vit_tiny_patch16_224", num_classes=2, image_size=32, config=config).eval()
    done = predict_files(other, [scene], tmp_path / "a", workers=0)
    assert "has 4 bands, and the model takes 2" in done.failures[0].reason
    monkeypatch.setattr(scenes, "LARGE_SCENE", 10)
    with pytest.raises(UserError, match="--mode slide --scales 1"):
        scenes.predict_scene(model, scene, tmp_path / "b", config=segvit.EvalConfig(mode="whole"), fingerprint="f")


def test_the_command_takes_a_scene(
    model: segvit.SegViT,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model.save(tmp_path / "m.safetensors")
    words = ["segvit", "predict", str(tmp_path / "m.safetensors"), str(scene), "--output", str(tmp_path / "seen")]
    monkeypatch.setattr(sys, "argv", [*words, "--device", "cpu"])
    with suppress(SystemExit):
        main()
    assert "1 label map in" in capsys.readouterr().out and (tmp_path / "seen" / "scene_labels.tif").is_file()


def test_a_protocol_for_photos_is_left_out_with_a_remark(model: segvit.SegViT, scene: Path, tmp_path: Path) -> None:
    model.protocol = segvit.EvalConfig(resize_short=24)
    done = scenes.predict_scene(model, scene, tmp_path / "a" / "scene", fingerprint="f")
    assert "resize_short 24 is for photos" in done.remarks[0]
    plain = scenes.predict_scene(model, scene, tmp_path / "b" / "scene", config=segvit.EvalConfig(), fingerprint="f")
    with rasterio.open(done.labels) as one, rasterio.open(plain.labels) as other:
        assert (one.read(1) == other.read(1)).all() and not plain.remarks


def test_other_annotations_of_a_scene_are_refused_and_overwrite_begins_anew(
    model: segvit.SegViT, scene: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    first = predict_files(model, [scene], seen, workers=0, confidence=True)
    assert first.remarks == [f"{scene}: GeoTIFF files get no confidence map"]
    (seen / "scene_labels.rows").write_bytes(b"rows of an earlier run")
    again = predict_files(model, [scene], seen, workers=0, confidence=True, overwrite=True)
    assert again.written == first.written and not (seen / "scene_labels.rows").exists()
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    with pytest.raises(UserError, match=r"--write coco yolo: .*scene\.tif is a GeoTIFF .* geojson alone"):
        predict_files(model, [tmp_path], tmp_path / "other", write=("yolo", "coco", "geojson"), workers=0)


def test_a_run_killed_while_it_writes_is_resumed(
    model: segvit.SegViT, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole" / "scene", tmp_path / "cut" / "scene"
    scenes.predict_scene(model, scene, whole, fingerprint="f")
    write = scenes._write

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for config in (None, segvit.EvalConfig(mode="whole")):
        monkeypatch.setattr(scenes, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            scenes.predict_scene(model, scene, cut, config=config, fingerprint="f")
        monkeypatch.setattr(scenes, "_write", write)
        done = scenes.predict_scene(model, scene, cut, config=config, fingerprint="f")
        assert done.resumed_rows == 1 and not (tmp_path / "cut" / "scene_labels.rows").exists()
        if config is None:
            with rasterio.open(done.labels) as one, rasterio.open(f"{whole}_labels.tif") as other:
                assert (one.read(1) == other.read(1)).all()


def test_a_refused_scene_leaves_nothing_and_is_refused_at_once(
    model: segvit.SegViT, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last pixel of a float scene is above 1, which only a white value explains."""
    monkeypatch.setattr(scenes, "BLOCK", BLOCK)
    monkeypatch.setattr(scenes, "TRACED_SIDE", 2 * BLOCK)
    with rasterio.open(scene) as source:
        values, place = source.read().astype(np.float32) / 4095, {"crs": source.crs, "transform": source.transform}
    values[0, -1, -1] = 7
    form = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 4, "dtype": "float32"}
    path, target = tmp_path / "floats.tif", tmp_path / "seen" / "floats"
    with rasterio.open(path, "w", **form, **place) as written:
        written.write(values)
    done: list[int] = []
    model.spec = replace(model.spec, white=None)
    with pytest.raises(UserError, match=r"floats up to 7; .*--data.white 7"):
        scenes.predict_scene(model, path, target, fingerprint="f", progress=lambda count, _: done.append(count))
    assert not done and not target.parent.exists()
    model.spec = replace(model.spec, white=7)
    assert scenes.predict_scene(model, path, target, fingerprint="f").labels.is_file()
    other = ModelConfig(embed_dim=32, depth=2, num_heads=2, taps=(0, 1), bands=2)
    two = segvit.create_model("vit_tiny_patch16_224", num_classes=2, image_size=32, config=other).eval()
    with pytest.raises(UserError, match="has 4 bands"):
        scenes.predict_scene(two, scene, tmp_path / "other" / "scene", fingerprint="f")
    assert not (tmp_path / "other").exists()


def test_polygons_are_added_to_the_label_map_on_disk(
    model: segvit.SegViT, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polygons need no confidence of a scene, and no second pass of the model. A photo still needs confidence."""
    seen, photo = tmp_path / "seen", tmp_path / "photos" / "a.tif"
    first = predict_files(model, [scene], seen, workers=0)
    with monkeypatch.context() as patched:
        patched.setattr(scenes, "stream_labels", None)
        again = predict_files(model, [scene], seen, workers=0, write=("geojson",))
    assert again.written == first.written and not again.failures
    with rasterio.open(seen / "scene_labels.tif") as written:
        _check_polygons(seen / "scene_polygons.geojson", written.read(1), model.classes)
    photo.parent.mkdir()
    with rasterio.open(photo, "w", driver="GTiff", height=32, width=32, count=4, dtype="uint16") as written:
        written.write(np.ones((4, 32, 32), np.uint16))
    mixed = predict_files(model, [scene, photo], seen, workers=0, write=("geojson",))
    assert mixed.skipped == first.written and (seen / "a_confidence.png").is_file()
    assert predict_files(model, [scene], seen, workers=0).skipped == first.written
    with pytest.raises(UserError, match="confidence was on and is off"):
        predict_files(model, [photo], seen, workers=0)


def test_a_clear_orthophoto_has_no_labels_outside_its_picture(tmp_path: Path) -> None:
    """Pixels of transparency 0 are 255 in the label map. Near infrared in its place gets a remark."""
    config = ModelConfig(embed_dim=32, depth=2, num_heads=2, taps=(0, 1))
    model = segvit.create_model("vit_tiny_patch16_224", num_classes=2, image_size=32, config=config).eval()
    values = np.random.default_rng(0).integers(1, 255, (4, 40, 50), np.uint8)
    values[3] = 255
    values[3, :10, 5:] = 0
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)}
    form = {"driver": "GTiff", "height": 40, "width": 50, "count": 4, "dtype": "uint8"}
    for name in ("ortho", "nir"):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **form, **place) as target:
            target.write(values)
        values[3, 20:] = 99
    done = [
        scenes.predict_scene(model, tmp_path / f"{name}.tif", tmp_path / name, fingerprint="f")
        for name in ("ortho", "nir")
    ]
    for each in done:
        with rasterio.open(each.labels) as written:
            assert ((written.read(1) == 255) == (values[3] == 0)).all()
    assert not done[0].remarks and "marked as transparency" in done[1].remarks[0]
