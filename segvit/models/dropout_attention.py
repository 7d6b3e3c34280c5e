"""Attention of queries over tokens, with dropout on its weights in training; a faster one for CPUs beside it.

Letters: B batch, H heads, n queries, N tokens, d width of a head.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 2**20
"""Attention weights computed at once: 4 MB in float32, which fits the cache of a CPU."""


def attention(q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Return softmax(q k^T / sqrt d) v. Weights are dropped with probability `dropout`, and the rest is scaled up.

    Args:
        q: queries (B, H, n, d).
        k: keys (B, H, N, d).
        v: values (B, H, N, d).
        dropout: 0..1.

    Returns:
        (B, H, n, d)
    """
    if 0 < dropout < 1 and q.device.type == "cpu" and not torch.compiler.is_compiling():
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype
        with torch.autocast("cpu", enabled=False):
            attended: Tensor = _DroppedAttention.apply(q.to(dtype), k.to(dtype), v.to(dtype), dropout)
        return attended
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


class _DroppedAttention(torch.autograd.Function):
    """Attention with dropout for a CPU, where PyTorch has no fused one and stores three times the weights for backward.

    It computes the weights P (n, N) of a few heads at a time and stores one byte for each. With W = P * keep / (1 - p),
    O = W v and the gradient G of O:  dv = W^T G,  dP = G v^T * keep / (1 - p),  dS = P * (dP - rowsum(G * O)),
    dq = dS k / sqrt d,  dk = dS^T q / sqrt d.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the attended values: (B, H, n, d), (B, H, N, d), (B, H, N, d) -> (B, H, n, d)."""
        q_, k_, v_ = (x.flatten(0, 1) for x in (q, k, v))
        keep, rate = kept((len(q_), q_.shape[1], k_.shape[1]), dropout, q.device)
        out = torch.empty_like(q_)
        for part in _parts(keep):
            weights = _weights(q_[part], k_[part]).mul_(keep[part].to(q.dtype))
            torch.bmm(weights, v_[part], out=out[part])
        out = out.div_(rate).view(q.shape)
        ctx.save_for_backward(q_, k_, v_, keep, out)  # copies, which the backward pass need not make again
        ctx.rate = rate
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of q, k and v from that of the output (B, H, n, d)."""
        q, k, v, keep, out = ctx.saved_tensors
        along = (gradient * out).sum(dim=3, keepdim=True).flatten(0, 1)  # (B * H, n, 1)
        gradient = gradient.flatten(0, 1) / ctx.rate
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        scale = q.shape[2] ** -0.5
        for part in _parts(keep):
            weights, stays = _weights(q[part], k[part]), keep[part].to(q.dtype)
            slopes = (gradient[part] @ v[part].transpose(1, 2)).mul_(stays).sub_(along[part]).mul_(weights)
            torch.bmm(weights.mul_(stays).transpose(1, 2), gradient[part], out=dv[part])
            torch.bmm(slopes.mul_(scale), k[part], out=dq[part])
            torch.bmm(slopes.transpose(1, 2), q[part], out=dk[part])
        return *(x.unflatten(0, out.shape[:2]) for x in (dq, dk, dv)), None


def _weights(q: Tensor, k: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt d): (m, n, d), (m, N, d) -> (m, n, N)."""
    return torch.softmax(q * q.shape[2] ** -0.5 @ k.transpose(1, 2), dim=2)


def _parts(keep: Tensor) -> list[slice]:
    """Return slices of (B * H) with about CHUNK_ELEMENTS weights each."""
    step = max(1, CHUNK_ELEMENTS // keep[0].numel())
    return [slice(start, start + step) for start in range(0, len(keep), step)]


def kept(shape: tuple[int, ...], dropout: float, device: torch.device) -> tuple[Tensor, float]:
    """Draw which values of a shape (a, b, ...) to keep: 1 or 0 in uint8. Return it and the share kept on average.

    Sixteen random bits decide on each value, so the share is a multiple of 2^-16. PyTorch's dropout takes five times as
    long. The result is uint8, since converting bool to float is slow.
    """
    dropped = min(round(dropout * 2**16), 2**16 - 1)
    bits = torch.empty(-(-math.prod(shape) // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    keep = bits.view(torch.int16)[: math.prod(shape)].view(shape) >= dropped - 2**15
    return keep.view(torch.uint8), 1 - dropped / 2**16
