"""Label a GeoTIFF, or another raster larger than memory, window by window, and write a GeoTIFF of labels.

    done = predict_scene(model, Path("scene.tif"), Path("seen/scene"), fingerprint=text)    # seen/scene_labels.tif

Finished rows of tiles are kept in a file beside the outputs. A run that was killed resumes after the last of them.

Letters: H, W size of the scene, K classes, y rows of a row of tiles.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segvit.config import EvalConfig
from segvit.data.bands.header import LARGE_SCENE
from segvit.data.bands.raster import Raster, open_raster
from segvit.data.bands.reading import Pixels
from segvit.data.bands.remarks import remarks
from segvit.data.bands.tensors import to_tensor
from segvit.data.labels.format import MAX_RAW
from segvit.data.spec import IGNORE_INDEX
from segvit.errors import UserError
from segvit.inference.network import Network, classes_of, reading_of
from segvit.inference.protocol import image_labels
from segvit.inference.stream import can_stream, stream_labels
from segvit.prediction.names import FACTS, SCENE_LABELS, SCENE_POLYGONS, SCENE_ROWS, aside, explaining, named
from segvit.prediction.outputs import is_scene_done
from segvit.prediction.scenes.geojson import trace_map
from segvit.prediction.scenes.geotiff import BLOCK, write_labels
from segvit.prediction.scenes.row_log import RowLog
from segvit.utils.progress import FrameProgress

TRACED_SIDE = 4096
"""Side in pixels of the blocks that polygons are traced in."""


@dataclass(frozen=True, kw_only=True)
class SceneDone:
    """Outcome of a scene."""

    labels: Path
    """The label map."""
    resumed_rows: int
    """Number of rows of tiles that an earlier run had finished."""
    remarks: list[str]
    """Facts about the file that was read in another way than expected."""


def predict_scene(
    model: Network,
    path: Path,
    target: Path,
    *,
    config: EvalConfig | None = None,
    fingerprint: str,
    polygons: bool = False,
    raw_ids: Sequence[int] | None = None,
    reuse: bool = False,
    progress: FrameProgress | None = None,
) -> SceneDone:
    """Label a raster and write its outputs: `_labels.tif`, `.json`, and `_polygons.geojson` if asked for.

    Args:
        model: in evaluation mode, on the device to run on.
        path: TIFF file.
        target: path of the outputs, without suffix.
        config: how the raster is cut. Default: the protocol of the model.
        fingerprint: digest of the file and all settings.
        polygons: write the polygons too.
        raw_ids: (K,) values to write for the classes. None writes class indices with a palette.
        reuse: keep a label map of an earlier run with the same fingerprint, and write only the polygons.
        progress: called with the number of finished rows of tiles and of all.

    Raises:
        UserError: rasterio is missing, the file cannot be read, it has other bands than the model, the protocol needs
            more memory than there is, or a file cannot be written.
    """
    done = SceneDone(labels=named(target, SCENE_LABELS), resumed_rows=0, remarks=[])
    if not (reuse and is_scene_done(target, fingerprint, polygons=False)):
        done = _label_scene(model, path, target, config, fingerprint=fingerprint, raw_ids=raw_ids, progress=progress)
    if polygons:
        with explaining(target):
            trace_map(
                done.labels,
                named(target, SCENE_POLYGONS),
                values=_class_values(model, raw_ids),
                classes=classes_of(model)[0],
                side=TRACED_SIDE,
            )
    return done


def _label_scene(
    model: Network,
    path: Path,
    target: Path,
    config: EvalConfig | None,
    *,
    fingerprint: str,
    raw_ids: Sequence[int] | None,
    progress: FrameProgress | None,
) -> SceneDone:
    """Label a raster and write the label map and its facts. Arguments and errors are those of `predict_scene`."""
    config, resized = _at_own_size(config or model.protocol)
    reading = reading_of(model)
    with open_raster(path, reading) as raster, explaining(target):
        _check_scene(raster, config)
        target.parent.mkdir(parents=True, exist_ok=True)
        source, log_path = _Peak(raster), named(target, SCENE_ROWS)
        with RowLog.open(log_path, f"{fingerprint} {raw_ids}") as log:
            resumed = log.count
            total = -(-raster.size[0] // BLOCK)
            nodata = _nodata(raw_ids)
            # A run that was killed while it wrote its outputs has no row left to label.
            left = _label_rows(model, raster, source, config, first=resumed) if resumed < total else ()
            for labels in left:
                log.append(_values(labels, raw_ids, nodata))
                if progress:
                    progress(log.count, total)
            _write(model, raster, log, target, raw_ids=raw_ids, fingerprint=fingerprint, path=path)
        log_path.unlink(missing_ok=True)
        seen = Pixels(
            np.empty((0, 0, 0), np.uint8), None, source.peak, raster.header.full, source.dropped, source.alpha
        )
        return SceneDone(
            labels=named(target, SCENE_LABELS),
            resumed_rows=resumed,
            remarks=[f"{path}: {text}" for text in (*resized, *remarks(seen, reading))],
        )


def _at_own_size(config: EvalConfig) -> tuple[EvalConfig, list[str]]:
    """Return a protocol without a resize to a fixed size, and a remark if it had one.

    Photos are resized to what the model was trained at. A scene has a scale on the ground, whatever its size.
    """
    if config.resize_long is None and config.resize_short is None:
        return config, []
    sides = {"resize_long": config.resize_long, "resize_short": config.resize_short}
    given = ", ".join(f"{name} {side}" for name, side in sides.items() if side is not None)
    text = (
        f"labelled at its own size; the protocol's {given} is for photos. If the model was trained on resized images, "
    )
    own = replace(config, resize_long=None, resize_short=None, resize_short_min=None)
    return own, [text + "resize the scene by the same factor first"]


def _check_scene(raster: Raster, config: EvalConfig) -> None:
    """Refuse a scene that cannot be labelled, before anything is computed or written.

    Raises:
        UserError: other bands than the model's, values below 0 or without a known white, or a protocol that needs more
            memory than there is.
    """
    height, width = raster.size
    if not can_stream(config) and height * width > LARGE_SCENE:
        raise UserError(
            f"{raster.path} has {height * width / 1e6:.0f} megapixels, and the protocol needs all of them in memory: "
            "type --mode slide --scales 1"
        )
    raster.check(step=TRACED_SIDE)


class _Peak:
    """A raster that notes the largest value that was read, and the bands that were not."""

    def __init__(self, raster: Raster) -> None:
        self.raster = raster
        self.peak: float | None = None
        self.dropped = self.alpha = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.raster.size

    def read(self, rows: slice, columns: slice) -> torch.Tensor:
        """Read a rectangle (N, y, x)."""
        pixels = self.raster.pixels(rows, columns)
        if pixels.peak is not None:
            self.peak = max(self.peak or 0, pixels.peak)
        self.dropped, self.alpha = pixels.dropped, self.alpha or pixels.alpha
        return to_tensor(pixels.values)


def _label_rows(
    model: Network, raster: Raster, source: _Peak, config: EvalConfig, *, first: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the labels (y, W) of each row of tiles from number `first` on, `IGNORE_INDEX` where there is no data."""
    if can_stream(config):
        found = stream_labels(model, source, config, tile=BLOCK, first=first)
    else:
        found = _whole_labels(model, source, config, first=first)
    for rows, tensor in found:
        labels = tensor.to(torch.uint8).cpu().numpy()
        missing = raster.missing(rows, step=TRACED_SIDE)
        if missing is not None:
            labels[missing] = IGNORE_INDEX
        yield labels


def _whole_labels(
    model: Network, source: _Peak, config: EvalConfig, *, first: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield the rows and labels of each row of tiles of a scene that is labelled in memory."""
    height, width = source.size
    whole = image_labels(model, source.read(slice(0, height), slice(0, width)), config)
    for top in range(first * BLOCK, height, BLOCK):
        rows = slice(top, min(top + BLOCK, height))
        yield rows, whole[rows]


def _class_values(model: Network, raw_ids: Sequence[int] | None) -> npt.NDArray[np.int64]:
    """Return the values (K,) of the classes in the label map."""
    return np.array(range(len(classes_of(model)[0])) if raw_ids is None else raw_ids)


def _nodata(raw_ids: Sequence[int] | None) -> int:
    """Return the value of pixels without data in the label map, which no class has."""
    taken = set(raw_ids or ())
    return next(value for value in itertools.chain((IGNORE_INDEX, 0), itertools.count()) if value not in taken)


def _values(labels: npt.NDArray[np.uint8], raw_ids: Sequence[int] | None, nodata: int) -> npt.NDArray[Any]:
    """Return the values to write for labels (y, W)."""
    if raw_ids is None:
        return labels
    table = np.full(IGNORE_INDEX + 1, nodata)
    table[: len(raw_ids)] = raw_ids
    return table.astype(np.uint8 if table.max() < 256 else np.uint16)[labels]


def _write(
    model: Network,
    raster: Raster,
    log: RowLog,
    target: Path,
    *,
    raw_ids: Sequence[int] | None,
    fingerprint: str,
    path: Path,
) -> None:
    """Write facts and label map from the finished rows: the facts first, so that an existing map belongs to them."""
    classes, palette = classes_of(model)
    height, width = raster.size
    nodata = _nodata(raw_ids)
    values = _class_values(model, raw_ids)
    counts = np.zeros(MAX_RAW + 1, np.int64)
    for number in range(log.count):
        counts += np.bincount(log.read(number).ravel(), minlength=MAX_RAW + 1)
    shares = counts[values] / (height * width)
    order = np.argsort(-shares)
    facts = {
        "image": str(path.absolute()),
        "width": width,
        "height": height,
        "shares": {classes[index]: float(shares[index]) for index in order if shares[index] > 0},
        "fingerprint": fingerprint,
    }
    for ending in (SCENE_LABELS, SCENE_POLYGONS):
        named(target, ending).unlink(missing_ok=True)
    with aside(named(target, FACTS)) as place:
        place.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_labels(
        named(target, SCENE_LABELS),
        (log.read(number) for number in range(log.count)),
        size=(height, width),
        dtype=log.read(0).dtype.name,
        place=raster.place,
        palette=palette if raw_ids is None else None,
        nodata=nodata,
    )
