"""A plain ViT that can begin at one of its blocks. Tokens of frozen blocks are kept in files, one an image and block.

    backbone = StagedViT(vit, first=12, store=TokenStore(Path("tokens")))   # runs no block for an image seen before
    backbone = StagedViT(vit, first=9)                                      # the same without files

Letters: B images, D width, H W image, h w token grid, P prefix tokens, N = h * w.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from segvit.models.backbone import PlainViT
from segvit.utils.files import whole_file

KEPT = (2, 5, 6, 7, 8, 11)
"""Blocks (from 0) whose tokens are kept: all that a head here reads or a backbone here begins behind."""


class TokenStore:
    """Tokens behind the kept blocks, in half precision, in files named by image, weights, precision and block."""

    def __init__(self, folder: Path, vit: PlainViT) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        weights = hashlib.blake2b(digest_size=8)
        for parameter in vit.parameters():
            weights.update(parameter.detach().cpu().numpy().tobytes())
        self.weights = weights.digest()

    def path(self, image: Tensor, block: int) -> Path:
        """Name the file of the tokens of a normalised image (3, H, W) behind a block, in the precision of now."""
        kind = image.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else image.dtype
        facts = repr((tuple(image.shape), precision)).encode()
        name = hashlib.blake2b(self.weights + facts + image.cpu().contiguous().numpy().tobytes(), digest_size=16)
        return self.folder / f"{name.hexdigest()}-{block}.pt"


class StagedViT(nn.Module):
    """A plain ViT as a backbone of SegViT, in two parts: the blocks before `first`, and the others.

    Args:
        vit: with taps among the kept blocks; its positions are absolute.
        first: block (from 0) with which the second part begins; it must not lie behind the one that shrinks.
        store: keeps what the first part gives, which must then be frozen. None: it runs each time.
    """

    def __init__(self, vit: PlainViT, *, first: int, store: TokenStore | None = None) -> None:
        super().__init__()
        assert vit.shrink_at is None or first <= vit.shrink_at
        assert first == 0 or first - 1 in KEPT, "the second part begins behind a kept block"
        self.vit = vit
        self.first = first
        self.store = store
        self.patch_size, self.map_cell, self.num_layers = vit.patch_size, vit.map_cell, vit.num_layers
        self.embed_dim, self.num_prefix_tokens = vit.embed_dim, vit.num_prefix_tokens

    def layer_of(self, name: str) -> int | None:
        """Return the layer of a parameter, see `PlainViT.layer_of`."""
        return self.vit.layer_of(name.removeprefix("vit."))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps (B, D, h, w) of the tapped blocks of normalised images (B, 3, H, W), shallow first."""
        vit, grid = self.vit, self.grid_of(images)
        tokens, behind = self.begin(images)
        maps = {block: (behind[block], grid) for block in vit.taps if block < self.first}
        map_grid = grid
        for index in range(self.first, len(vit.blocks)):
            if index == vit.shrink_at:
                tokens, kept = vit.shrink(tokens, grid, None)
                map_grid = kept.grid
            else:
                tokens = vit.run_block(index, tokens, grid, None, None)
            if index in vit.taps:
                maps[index] = (tokens, map_grid)
        return [self.map_of(*maps[block]) for block in vit.taps]

    def begin(self, images: Tensor) -> tuple[Tensor, Mapping[int, Tensor]]:
        """Return the tokens (B, P + N, D) that enter block `first`, and those behind the kept blocks before it."""
        if self.first == 0:
            return self.vit.embed(images)[0], {}
        behind = self._first_part(images) if self.store is None else self._stored(images, self.store)
        return behind[self.first - 1], behind

    def map_of(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the map (B, D, h, w) of the patches among tokens (B, P + N, D)."""
        return tokens[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid)

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Return the token grid (h, w) of images (B, 3, H, W)."""
        return images.shape[2] // self.patch_size, images.shape[3] // self.patch_size

    def _first_part(self, images: Tensor) -> dict[int, Tensor]:
        """Run the blocks before `first`, and return the tokens (B, P + N, D) behind each kept one."""
        tokens, grid = self.vit.embed(images)
        behind = {}
        for index in range(self.first):
            tokens = self.vit.run_block(index, tokens, grid, None, None)
            if index in KEPT:
                behind[index] = tokens
        return behind

    def _stored(self, images: Tensor, store: TokenStore) -> dict[int, Tensor]:
        """Return what `_first_part` gives from files, which are written for images that have none."""
        needed = sorted({self.first - 1, *(block for block in self.vit.taps if block < self.first)})
        paths = [{block: store.path(image, block) for block in needed} for image in images]
        missing = [row for row, files in enumerate(paths) if not all(file.exists() for file in files.values())]
        if missing:
            with torch.no_grad():
                found = self._first_part(images[missing])
            for block, tokens in found.items():
                for row, one in zip(missing, tokens, strict=True):
                    with whole_file(store.path(images[row], block), flush=False) as aside:
                        torch.save(one.half().clone(), aside)
        stacked = {block: torch.stack([torch.load(files[block]) for files in paths]) for block in needed}
        return {block: tokens.to(images) for block, tokens in stacked.items()}
