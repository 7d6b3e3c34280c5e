"""Settings of the network."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from segvit.config_files import take_paths

Structure = Literal["plain", "shrunk", "naive_shrunk"]
Downsampling = Literal["nearest_q", "nearest_qkv", "conv", "mean_q", "edge"]
Upsampling = Literal["tap", "paper"]
Head = Literal["atm", "linear"]
Upscaler = Literal["none", "conv"]
HeadClasses = Literal["softmax", "presence"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network, without its classes, which the dataset names."""

    backbone: str = "vit_base_patch16_384"
    """Name of a plain ViT in timm."""
    structure: Structure = "plain"
    """plain: the ATM cascade on every token. shrunk: one block keeps a quarter of the tokens, and an up-sampling
    restores the grid. naive_shrunk: like shrunk without the up-sampling, with masks at half the resolution."""
    head: Head = "atm"
    """atm: attention to mask. linear: one linear layer on the normalised maps, trained by the cross entropy of each
    pixel; a baseline, and a probe of the backbone."""
    head_classes: HeadClasses = "softmax"
    """Decision of the ATM head on each class token. softmax: one of all classes or "no object", as in the paper.
    presence: its own class is in the image or not, so each class has its score from its own mask alone."""
    added_head: bool = False
    """The classes of the head were added too, to a model whose first group was dropped."""
    added_classes: tuple[int, ...] = ()
    """Number of classes in each group that `segvit train --extend` added, in order. The head has the classes before
    them. Set by that command alone."""
    bands: int | None = None
    """Number of bands of the images. Pretrained patch embeddings are spread over them as timm does. Default: as many as
    the data name (`data.bands`, or `bands` in the spec), otherwise 3."""
    image_size: int = 512
    """Side of the training crop in pixels, which is also the default window. Inference takes any size."""
    pretrained: bool = False
    """Start from timm's weights of this backbone, downloaded from the Hub. Default: random weights."""
    pretrained_file: Path | None = None
    """Start from timm's weights in this file (.safetensors or .pth), without network access. Add their tag, such as
    .augreg_in21k, to `backbone`: it selects mean and std."""
    position_grid: Literal["pretrained", "crop"] | None = None
    """Grid of absolute positions. pretrained: that of timm's weights; each image gets them resized to its own grid.
    crop: that of the training crop, as in the paper's recipes. FlexiViT, RADIO and backbones without absolute positions
    take crop alone. Default: pretrained if the backbone starts from pretrained weights, otherwise crop."""
    taps: tuple[int, ...] | None = None
    """Blocks (from 0) whose outputs feed the head, shallow first. Default: the paper's for 12 and 24 blocks. shrunk:
    the block before `shrink_at`, the last block and, with upsampling tap, the one half-way. naive_shrunk: the last."""
    shrink_at: int | None = None
    """Block (from 0) of a shrunk structure that keeps every second row and column of the tokens. Default: 6 of 12
    blocks, 8 of 24, otherwise a third of the depth; with upsampling tap one more. With downsampling edge: 3 of 12, 5 of
    24, otherwise a fifth of the depth."""
    downsampling: Downsampling = "nearest_q"
    """Source of the queries of that block. nearest_q: the kept tokens, with keys and values from all. nearest_qkv: the
    same, with keys and values from the kept tokens. conv: a convolution of stride 2, otherwise like nearest_q. mean_q:
    the mean of every 2 x 2 tokens, otherwise like nearest_q. edge: like nearest_q, and the block also keeps tokens on
    edges of objects, which a small head finds."""
    edge_share: float = 0.25
    """Number of tokens that downsampling edge keeps for their edges, as a fraction of all tokens, at most 0.5."""
    upsampling: Upsampling = "tap"
    """Up-sampling of shrunk. tap: interpolate the shrunk maps and add the tap before them. paper: learned queries
    gather all maps."""
    upscaler: Upscaler = "none"
    """Last step of the masks. none: they have a cell per patch. conv: 4 x 4 cells per patch, with boundaries from the
    pixels. It starts without effect, so that it can be added to a trained model."""
    merge_threshold: float | None = None
    """Cosine similarity above which tokens merge (ALGM: 0.88): 2 x 2 windows behind an early block, and pairs anywhere
    behind a middle one. Their number depends on the image. For the structure plain. Default: none merge."""
    merge_shares: tuple[float, float] | None = None
    """Shares of the windows and of the pairs that merge in place of a threshold, the most similar first. Each image of
    a size keeps as many tokens, which exported graphs need. `segvit merge-find --fixed` measures them."""
    merge_at: tuple[int, int] | None = None
    """Blocks (from 0) behind which windows and pairs merge. Default: 1 and 5 of 12 blocks, 2 and 10 of 24."""
    patch_size: int | None = None
    """Side of a patch in pixels. Default: the backbone's own."""
    embed_dim: int | None = None
    """Width of the backbone. Default: its own."""
    depth: int | None = None
    """Number of blocks. Default: the backbone's own."""
    num_heads: int | None = None
    """Attention heads of a block. Default: the backbone's own. If `embed_dim` is set, embed_dim / 64."""
    class_token: bool | None = None
    """Keep the class token. Default: the backbone's own setting. The paper's recipes set it to false."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block; it grows linearly from 0 at the first."""
    drop_path_branches: Literal["both", "mlp"] = "both"
    """Branches of a block that drop path drops: attention and MLP, or the MLP alone, as in the paper's recipes."""
    head_dim: int | None = None
    """Width d of the ATM head and of the up-sampling. Default: half the backbone's width."""
    head_num_heads: int | None = None
    """Attention heads of an ATM layer. Default: head_dim / 32."""
    head_num_layers: int = 3
    """Decoder layers of an ATM stage."""
    upsampling_num_layers: int = 3
    """Decoder layers of the up-sampling `paper` over each tap."""
    head_dropout: float = 0.1
    """Dropout rate of the ATM head, on branches and on attention weights."""
    init_std: float = 0.02
    """Standard deviation of the initial weights of Linear layers: the head's, and the backbone's if not pretrained."""
    mean: tuple[float, ...] | None = None
    """Mean of each band on the 0..1 scale. Default: see `data.statistics`."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each band on the 0..1 scale. Default: see `data.statistics`."""

    def __post_init__(self) -> None:
        take_paths(self)

    @property
    def starts_pretrained(self) -> bool:
        """True if the backbone starts from timm's weights, from the Hub or a file."""
        return self.pretrained or self.pretrained_file is not None

    @property
    def outline(self) -> str:
        """Structure in words, with the parts that it leaves open: "shrunk, up-sampling tap, upscaled masks"."""
        upsampling = f", up-sampling {self.upsampling}" if self.structure == "shrunk" else ""
        head = f", {self.head} head" if self.head != "atm" else ""
        head += ", presence head" if self.head_classes == "presence" else ""
        upscaler = ", upscaled masks" if self.upscaler != "none" else ""
        return f"{self.structure}{upsampling}{head}{upscaler}"

    @property
    def learned_grid(self) -> Literal["pretrained", "crop"]:
        """`position_grid` with its default resolved."""
        return self.position_grid or ("pretrained" if self.starts_pretrained else "crop")

    def without_weights(self) -> "ModelConfig":
        """Return the config without pretrained weights, for a network that gets weights of its own."""
        grid = self.learned_grid if self.starts_pretrained else self.position_grid
        return replace(self, pretrained=False, pretrained_file=None, position_grid=grid)
