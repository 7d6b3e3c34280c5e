"""Attention with dropout on its weights, against the plain formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segvit.models import dropout_attention as module
from segvit.models.dropout_attention import attention, kept
from tests.helpers.one_file import one_file

SHAPES = [(2, 3, 5, 7, 4), (1, 1, 1, 1, 1), (3, 2, 40, 9, 8)]
"""B, H, n, N, d"""


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v that take gradients."""
    random = torch.Generator().manual_seed(0)
    batch, heads, queries, tokens, width = shape
    # (B, n, H, d) seen as (B, H, n, d), as the decoder gives it: its heads are not contiguous
    q, k, v = (torch.randn(batch, n, heads, width, generator=random).transpose(1, 2) for n in (queries, tokens, tokens))
    return tuple(x.to(dtype).requires_grad_() for x in (q, k, v))  # type: ignore[return-value]


def reference(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """The formula, with the draws that `attention` makes from the same state."""
    heads = q.shape[1]
    keep, share = kept((len(q) * heads, q.shape[2], k.shape[2]), dropout, q.device)
    side_by_side = (x.transpose(1, 2).flatten(2) for x in (q, k, v))
    values, _ = one_file.attend(*side_by_side, heads, lambda weights: weights * keep.view(weights.shape) / share)
    out: Tensor = values.unflatten(2, (heads, -1)).transpose(1, 2)
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk", [1, 100, 2**20])
def test_values_and_gradients_are_those_of_the_formula(
    shape: tuple[int, ...], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    found = []
    for function in (lambda *qkv: attention(*qkv, dropout=0.3), lambda *qkv: reference(*qkv, 0.3)):
        qkv = inputs(shape)
        torch.manual_seed(1)
        out = function(*qkv)
        (out * torch.arange(out.numel()).view(out.shape).cos()).sum().backward()
        found.append([out, *(x.grad for x in qkv)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_without_dropout_it_is_the_fused_one() -> None:
    q, k, v = inputs(SHAPES[0])
    torch.testing.assert_close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v), rtol=0, atol=0)


@pytest.mark.parametrize("dropout", [1e-6, 0.1, 0.25, 0.9, 1 - 1e-6])
def test_the_share_that_is_kept(dropout: float) -> None:
    torch.manual_seed(0)
    keep, share = kept((1001, 999), dropout, torch.device("cpu"))
    assert abs(share - (1 - dropout)) <= 2**-16
    assert set(keep.unique().tolist()) <= {0, 1}
    assert keep.float().mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / keep.numel()) ** 0.5)


def test_all_may_be_dropped() -> None:
    q, k, v = inputs(SHAPES[0])
    assert not attention(q, k, v, dropout=1.0).any()


def test_draws_follow_the_seed() -> None:
    q, k, v = inputs(SHAPES[2])
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(attention(q, k, v, dropout=0.5))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_autocast_computes_in_its_own_precision() -> None:
    q, k, v = inputs(SHAPES[2], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(q, k, v, dropout=0.1)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert q.grad is not None
    assert q.grad.dtype == torch.float32


def test_one_byte_a_weight_is_kept_for_the_backward_pass() -> None:
    shape = (2, 3, 50, 200, 4)
    q, k, v = inputs(shape, torch.float32)
    sizes = []

    def note(x: Tensor) -> Tensor:
        sizes.append(x.untyped_storage().nbytes())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        attention(q, k, v, dropout=0.1)
    weights = 2 * 3 * 50 * 200
    assert sum(sizes) <= weights + 8 + 4 * (2 * q.numel() + k.numel() + v.numel())
