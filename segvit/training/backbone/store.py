"""Features on disk: one file per crop, in a folder named by a digest of everything that they depend on.

    store = FeatureStore(folder, num_values=..., crop=252)
    store.write(crop_key, features, labels)
    store.read(crop_key)                        # the two tensors, or None: not there, or damaged

A file is written aside and renamed, and carries a checksum. So a file that is cut short, damaged or of other settings
is never used.

Letters: c side of the crop, L values of an image.
"""

import zlib
from pathlib import Path

import torch
from torch import Tensor

from segvit.data.sampling.crops import CropKey
from segvit.training.backbone.features import DTYPE
from segvit.utils.files import whole_file, writing

CHECKSUM_BYTES = 4
UNFINISHED = ".partial"
"""Ending of the hidden names of files that are being written."""
REMEDY = "make room, give another folder with --data.cache-features, or leave it out"


class FeatureStore:
    """Features (L,) float16 and labels (c, c) of crops, by key."""

    def __init__(self, folder: Path, *, num_values: int, crop: int) -> None:
        """Set the layout.

        Args:
            folder: of the files.
            num_values: L.
            crop: c.
        """
        self.folder = folder
        self.num_values = num_values
        self.crop = crop
        self.feature_bytes = num_values * DTYPE.itemsize
        self.file_bytes = CHECKSUM_BYTES + self.feature_bytes + crop**2

    def path(self, crop_key: CropKey) -> Path:
        """Return the file of a crop."""
        wanted = "" if crop_key.wanted is None else f"-class{crop_key.wanted}"
        return self.folder / f"image{crop_key.sample}-view{crop_key.view}{wanted}.features"

    def read(self, crop_key: CropKey) -> tuple[Tensor, Tensor] | None:
        """Return features (L,) float16 and labels (c, c) int64 of a crop; None if there is no intact file of it."""
        try:
            content = bytearray(self.path(crop_key).read_bytes())
        except OSError:
            return None
        payload = memoryview(content)[CHECKSUM_BYTES:]
        if len(content) != self.file_bytes or _checksum(payload) != bytes(content[:CHECKSUM_BYTES]):
            return None
        features = torch.frombuffer(content, dtype=DTYPE, count=self.num_values, offset=CHECKSUM_BYTES)
        labels = torch.frombuffer(content, dtype=torch.uint8, offset=CHECKSUM_BYTES + self.feature_bytes)
        return features, labels.view(self.crop, self.crop).long()

    def write(self, crop_key: CropKey, features: Tensor, labels: Tensor) -> None:
        """Write features (L,) float16 and labels (c, c) of a crop.

        Raises:
            UserError: the file cannot be written.
        """
        payload = features.numpy().tobytes() + labels.to(torch.uint8).numpy().tobytes()
        path = self.path(crop_key)
        with writing(path, REMEDY), whole_file(path, flush=False, ending=UNFINISHED) as aside:
            aside.write_bytes(_checksum(payload) + payload)

    def num_stored(self) -> int:
        """Return the number of crops whose files are there."""
        return sum(1 for _ in self.folder.glob("*.features"))


def _checksum(payload: bytes | memoryview) -> bytes:
    return zlib.crc32(payload).to_bytes(CHECKSUM_BYTES, "little")
