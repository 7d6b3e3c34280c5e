"""Programs for converters: attention without guards and no aliases, with the same result."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvit.export.graph import NotExportable
from segvit.export.lowering import attend, lower


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_plain_attention_is_pytorchs(masked: bool, scale: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, 5, 4, generator=generator)
    key, value = torch.randn(2, 2, 3, 7, 4, generator=generator)
    mask = torch.randn(5, 7, generator=generator) if masked else None
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    torch.testing.assert_close(attend(query, key, value, mask, scale=scale), expected)


class Block(nn.Module):
    """Attention, and an alias inside and at the end."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        same = torch.ops.aten.alias(tokens)
        mixed = F.scaled_dot_product_attention(same, same, same)
        return mixed * 2, torch.ops.aten.alias(mixed)


def test_lowered_program_computes_the_same() -> None:
    tokens = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(Block(), (torch.zeros(1, 6, 4),))
    lowered = lower(program)
    for found, expected in zip(lowered.module()(tokens), Block()(tokens), strict=True):
        torch.testing.assert_close(found, expected)
    used = Counter(str(node.target) for node in lowered.graph.nodes if node.op == "call_function")
    assert used["aten.bmm.default"] == 2 and used["aten._softmax.default"] == 1
    assert not used.keys() & {"aten.where.self", "aten.eq.Scalar"}
    assert used["aten.alias.default"] <= 1  # that of an output


def test_attention_that_is_not_ours() -> None:
    tokens = torch.zeros(1, 6, 4)
    for other in ({"is_causal": True}, {"enable_gqa": True}, {"attn_mask": torch.ones(6, 6, dtype=torch.bool)}):
        with pytest.raises(NotImplementedError, match="causal, grouped or boolean"):
            attend(tokens, tokens, tokens, **other)


def test_operators_without_decomposition() -> None:
    class Program:
        def run_decompositions(self, _: object) -> None:
            raise NotImplementedError("causal attention\nand where it is")

    with pytest.raises(NotExportable, match=r"causal attention$"):
        lower(Program())  # type: ignore[arg-type]
