"""SegViT in one file: the whole method in plain PyTorch, to be read from top to bottom.

SegViT ("Semantic Segmentation with Plain Vision Transformers", NeurIPS 2022) learns one token per class. The class
tokens attend to the tokens of a plain ViT, and where token k looks *is* the mask of class k: attention to mask (ATM).

    model = SegViT(150)                                             # ViT-Base with the ATM head
    model = SegViT(150, taps=(5, 11), shrink_at=6, upsample=True)   # Shrunk: 20 % fewer multiply-adds
    model = SegViT(150, taps=(11,), shrink_at=6)                    # naive shrunk, the ablation
    output = model(images)                                          # images (B, 3, H, W) in 0..1, of any size
    criterion(output, labels).sum().backward()                      # labels (B, H, W), 255 where ignored
    label_map = scores(output).argmax(dim=1)                        # (B, H, W)

The package computes the same numbers from parameters of the same names: its weights load here, if their ViT has no
class token. It also has pretrained ViTs of every family, drop path, recipes, the test protocol, and speed. Sections
are those of docs/method.md.

Letters: B batch, K classes, H W image, h w token grid, N = h * w tokens, n queries or kept tokens, D width of the ViT,
d = D / 2 width of the decoder, C either width, S supervised outputs, M pairs of an image and a class present in it.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(q, k, v, num_heads, dropout=nn.Identity()):  # (B, n, C), (B, N, C), (B, N, C) -> (B, n, C), (B, n, N)
    q, k, v = (x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, ., C / heads)
    similarity = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # (B, heads, n, N)
    values = dropout(similarity.softmax(dim=3)) @ v
    return values.transpose(1, 2).flatten(2), similarity.mean(dim=1)  # the mean over heads, before the softmax


def resize(tokens, old, new):  # learned tokens (1, N, C) from the grid of the training crop to the grid of an image
    return F.interpolate(tokens.transpose(1, 2).unflatten(2, old), new, mode="bicubic").flatten(2).transpose(1, 2)


class Block(nn.Module):  # pre-norm ViT block (section 1); with stride 2, query-based down-sampling (QD, section 3)
    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x, grid, stride):  # (B, N, D) -> (B, n, D) and the grid of the n kept tokens
        kept = torch.arange(x.shape[1], device=x.device).view(grid)[::stride, ::stride]
        q, k, v = self.attn.qkv(self.norm1(x)).chunk(3, dim=2)
        # QD: only the kept tokens ask, but all tokens answer. It adds no parameter, so pretrained weights still fit.
        x = x[:, kept.flatten()] + self.attn.proj(attend(q[:, kept.flatten()], k, v, self.num_heads)[0])
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x)))), kept.shape


class Backbone(nn.Module):  # plain ViT without class token and last norm (section 1)
    def __init__(self, grid, patch, dim, num_heads, taps, shrink_at):
        super().__init__()
        self.grid, self.taps, self.shrink_at = grid, taps, shrink_at
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, stride=patch)})
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1], dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(taps[-1] + 1))

    def forward(self, images):  # (B, 3, H, W) -> [(B, D, h, w)], the raw output of every tapped block
        x, features = self.patch_embed.proj(images), []
        grid = x.shape[2:]
        x = x.flatten(2).transpose(1, 2) + resize(self.pos_embed, self.grid, grid)  # (B, N, D)
        for index, block in enumerate(self.blocks):
            x, grid = block(x, grid, stride=2 if index == self.shrink_at else 1)
            if index in self.taps:
                features.append(x.transpose(1, 2).unflatten(2, grid))
        return features


class DecoderLayer(nn.Module):  # post-norm decoder layer without position encoding (section 2)
    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads, self.dropout = num_heads, nn.Dropout(0.1)
        self.self_attn = nn.ModuleDict({name: nn.Linear(dim, dim) for name in ("q", "k", "v", "proj")})
        self.cross_attn = nn.ModuleDict({name: nn.Linear(dim, dim) for name in ("q", "k", "v", "proj")})
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def attention(self, part, queries, tokens):
        values, similarity = attend(part.q(queries), part.k(tokens), part.v(tokens), self.num_heads, self.dropout)
        return self.dropout(part.proj(values)), similarity

    def forward(self, queries, tokens):  # (B, n, d), (B, N, d) -> (B, n, d), (B, n, N)
        queries = self.norm1(queries + self.attention(self.self_attn, queries, queries)[0])
        values, similarity = self.attention(self.cross_attn, queries, tokens)
        queries = self.norm2(queries + values)
        hidden = self.dropout(F.relu(self.fc1(queries)))
        return self.norm3(queries + self.dropout(self.fc2(hidden))), similarity


class DecoderStage(nn.Module):  # three decoder layers over one map, which is projected to width d if it is a tap
    def __init__(self, in_dim, dim, num_heads):
        super().__init__()
        self.proj = nn.Linear(in_dim, dim) if in_dim else nn.Identity()
        self.norm = nn.LayerNorm(dim) if in_dim else nn.Identity()
        self.layers = nn.ModuleList(DecoderLayer(dim, num_heads) for _ in range(3))

    def forward(self, queries, feature):  # (B, n, d), (B, D, h, w) -> for each layer (B, n, d), (B, n, h, w)
        tokens = self.norm(self.proj(feature.flatten(2).transpose(1, 2)))  # (B, N, d)
        for layer in self.layers:
            queries, similarity = layer(queries, tokens)
            yield queries, similarity.unflatten(2, feature.shape[2:])


class ATMHead(nn.Module):  # attention to mask (section 2): the similarity of class tokens and image tokens is the mask
    def __init__(self, stages, num_classes, dim, every_layer):
        super().__init__()
        self.stages, self.every_layer = nn.ModuleList(stages), every_layer  # Shrunk supervises every layer by itself
        self.class_tokens = nn.Parameter(torch.randn(num_classes, dim))  # query k *is* class k: nothing is matched
        self.classifier = nn.Linear(dim, num_classes + 1)  # shared by all stages; the last class is "no object"

    def forward(self, features):  # [(B, D, h, w)] -> (S, B, K, K + 1), (S, B, K, h, w)
        queries, before, outputs = self.class_tokens.expand(len(features[0]), -1, -1), 0.0, []  # (B, K, d)
        for stage, feature in zip(self.stages, reversed(features)):  # deepest first; each stage adds to the masks
            layers = list(stage(queries, feature))
            for queries, similarity in layers if self.every_layer else layers[-1:]:
                outputs.append((self.classifier(queries), before + similarity))
            before = outputs[-1][1]
        return tuple(torch.stack(logits) for logits in zip(*outputs))


class QueryUpsampling(nn.Module):  # QU (section 3): learned tokens, one for each patch, restore the grid before QD
    def __init__(self, stages, grid, dim):
        super().__init__()
        self.stages, self.grid = nn.ModuleList(stages), grid
        self.tokens = nn.Parameter(torch.randn(grid[0] * grid[1], dim))

    def forward(self, features):  # (B, D, h, w) before QD and (B, D, h / 2, w / 2) after it -> (B, d, h, w)
        grid = features[0].shape[2:]
        queries = resize(self.tokens[None], self.grid, grid).expand(len(features[0]), -1, -1)  # (B, N, d)
        for stage, feature in zip(self.stages, features):
            *_, (queries, _) = stage(queries, feature)
        return queries.transpose(1, 2).unflatten(2, grid)


class SegOutput(NamedTuple):  # S supervised outputs; the last one is the prediction
    class_logits: Tensor  # (S, B, K, K + 1): query k over the K classes and "no object"
    mask_logits: Tensor  # (S, B, K, h, w): the mask of query k, before the sigmoid
    image_size: tuple  # (H, W)
    padded_size: tuple  # (H, W) up to whole patches: what the masks cover

    def masks(self, s):  # mask logits of output s at the size of the image: (B, K, H, W)
        masks = F.interpolate(self.mask_logits[s], size=self.padded_size, mode="bilinear")
        return masks[..., : self.image_size[0], : self.image_size[1]]


class SegViT(nn.Module):  # the three structures differ in what reads the taps, and in what the head reads
    def __init__(
        self, num_classes, taps=(5, 7, 11), shrink_at=None, upsample=False, crop=512, patch=16, dim=768, num_heads=12
    ):
        super().__init__()
        grid, d = (-(-crop // patch), -(-crop // patch)), dim // 2
        self.patch, self.cell = patch, patch if shrink_at is None or upsample else 2 * patch  # pixels of a mask logit
        self.backbone = Backbone(grid, patch, dim, num_heads, taps, shrink_at)
        stages = [DecoderStage(dim, d, num_heads) for _ in taps]  # for QU if there is one, else for the head
        self.upsampling = QueryUpsampling(stages, grid, d) if upsample else None
        self.head = ATMHead([DecoderStage(None, d, num_heads)] if upsample else stages, num_classes, d, upsample)
        self.mean, self.std = nn.Buffer(torch.full((3,), 0.5)), nn.Buffer(torch.full((3,), 0.5))
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(self, images):  # (B, 3, H, W) -> SegOutput
        x = (images - self.mean[:, None, None]) / self.std[:, None, None]
        x = F.pad(x, (0, -x.shape[3] % self.patch, 0, -x.shape[2] % self.patch))  # right and bottom, to whole patches
        features = self.backbone(x)
        logits = self.head([self.upsampling(features)] if self.upsampling else features)
        return SegOutput(*logits, images.shape[2:], tuple(self.cell * side for side in logits[1].shape[3:]))


def scores(output):  # -> (B, K, H, W): query q votes for class c, where its mask is, with P[q, c] (section 2)
    P = output.class_logits[-1].softmax(dim=-1)[..., :-1]  # (B, K queries, K classes), without "no object"
    return torch.einsum("bqc,bqyx->bcyx", P, output.masks(-1).sigmoid())


def criterion(output, labels, ignore_as_negative=False, no_object_weight=0.1, coefficients=(1.0, 20.0, 1.0)):
    # SegOutput, labels (B, H, W) -> (S, 3): class, focal and dice loss of every output; training sums them (section 4)
    classes = torch.arange(output.class_logits.shape[2], device=labels.device)
    t = labels[:, None] == classes[:, None, None]  # (B, K, H, W): one binary mask for each class
    present = t.flatten(2).any(dim=2)  # (B, K)
    t, num_masks = t[present], present.sum().clamp(min=1)  # (M, H, W): absent classes have the class loss alone
    valid = ((labels != 255) | ignore_as_negative)[present.nonzero()[:, 0]]  # (M, H, W)
    targets = torch.where(present, classes, len(classes))  # (B, K): class k where it is present, else "no object"
    weights = torch.where(present, 1.0, no_object_weight)  # (B, K)
    losses = []
    for s, class_logits in enumerate(output.class_logits):  # deep supervision
        entropy = F.cross_entropy(class_logits.transpose(1, 2), targets, reduction="none")  # (B, K)
        x = output.masks(s)[present]  # (M, H, W)
        p, wrong = x.sigmoid() * valid, torch.where(t, -x, x)  # wrong: the logit of the wrong answer
        focal = torch.where(t, 0.25, 0.75) * wrong.sigmoid() ** 2 * F.softplus(wrong) * valid
        focal = focal.sum(dim=(1, 2)) / valid.sum(dim=(1, 2))  # (M,)
        dice = 1 - (2 * (p * t).sum(dim=(1, 2)) + 1) / (p.sum(dim=(1, 2)) + t.sum(dim=(1, 2)) + 1)  # (M,)
        losses += [(entropy * weights).sum() / weights.sum(), focal.sum() / num_masks, dice.sum() / num_masks]
    return torch.stack(losses).view(-1, 3) * torch.tensor(coefficients, device=labels.device)
