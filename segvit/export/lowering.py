"""Rewrite a traced program for converters that translate PyTorch's core operators one by one.

PyTorch decomposes its attention operator with a guard for rows that mask everything. Our rows never do, and the guard
would interrupt each block with operators that mobile backends lack. So attention becomes two products and a softmax.
Aliases are left out: Core ML refuses them, and ExecuTorch copies them, which failed in another memory format.
"""

import torch
from torch import Tensor
from torch.export import ExportedProgram

from segvit.export.graph import NotExportable, quiet
from segvit.utils.text import first_line

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
ALIAS = torch.ops.aten.alias.default


def lower(program: ExportedProgram) -> ExportedProgram:
    """Return a program of core operators that computes the same.

    Raises:
        NotExportable: an operator has no decomposition.
    """
    table = torch.export.default_decompositions()
    table[ATTENTION] = attend
    try:
        with quiet(), torch.no_grad():
            lowered: ExportedProgram = program.run_decompositions(table)
    except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
        raise NotExportable(first_line(error)) from error
    _drop_aliases(lowered)
    return lowered


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute `torch.nn.functional.scaled_dot_product_attention` (..., L, D) plainly, for inference.

    Args:
        query: (..., L, D).
        key: (..., S, D).
        value: (..., S, D).
        attn_mask: (..., L, S), added to the similarities.
        dropout_p: ignored; there is no dropout in inference.
        is_causal: must be False.
        scale: factor of the similarities. Default: 1 / sqrt(D).
        enable_gqa: must be False.

    Raises:
        NotImplementedError: causal or grouped attention, or a mask of truth values.
    """
    if is_causal or enable_gqa or (attn_mask is not None and attn_mask.dtype == torch.bool):
        raise NotImplementedError("causal, grouped or boolean attention cannot be lowered")
    similarities = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if attn_mask is not None:
        similarities = similarities + attn_mask
    return similarities.softmax(dim=-1) @ value


def _drop_aliases(program: ExportedProgram) -> None:
    """Remove aliases. Outputs keep theirs, because the signature names them."""
    graph = program.graph_module.graph
    named = {spec.arg.name for spec in program.graph_signature.output_specs}
    for node in graph.nodes:
        if node.op == "call_function" and node.target == ALIAS and node.name not in named:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    program.graph_module.recompile()
