"""Recomputation: modules that a training step's backward computes again instead of keeping what they made.

Names are those of Megatron-LM (`--recompute-modules`), each of which lets go of tensors and runs launches again:

| module | lets go of | computes again |
|---|---|---|
| core_attn | log-sum-exp of the core (its output stays: the projection after it reads it) | the core |
| mla_up_proj | queries, keys and values of MLA | norms and up-projections of the latents, rotary embedding |
| layernorm | outputs of the norms before attention and before the feed-forward block | both norms |
| moe_act | output of SwiGLU of the routed experts | SwiGLU, in the launch of its backward |
| mlp | everything inside a dense feed-forward block | its forward |
| moe | everything inside the experts' block: received rows, shared experts | gate, dispatch, experts, shared experts, combine |
| shared_experts | everything inside the shared experts | their forward |

`selective` is DeepSeek-V3's: norms, up-projections of MLA, and SwiGLU of every block (`ffn_act` is that of blocks without
routed experts, for which Megatron has no name). `full` keeps a layer's input alone.

References
----------
Megatron-LM, megatron/core/transformer/transformer_config.py, `recompute_modules`. DeepSeek-V3, arXiv 2412.19437, section 3.2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from sim.errors import InputError, Problem, nearest

Module = Literal["core_attn", "mla_up_proj", "layernorm", "moe_act", "mlp", "moe", "shared_experts"]
MODULES: tuple[str, ...] = get_args(Module)
RECOMPUTE = ("none", "selective", "full")
_INSIDE_MOE = frozenset({"moe_act", "shared_experts"})
SELECTIVE = frozenset({"layernorm", "mla_up_proj", "moe_act", "ffn_act"})


def recomputed(recompute: str | Sequence[str]) -> frozenset[str]:
    """List the modules that the backward of a layer computes again; those inside another one are not counted twice.

    "none", "selective", "full" or modules. The backward of "full" follows a forward that is run again whole,
    and is that of "selective". InputError for a name that is none of these.
    """
    if isinstance(recompute, str):
        if recompute not in RECOMPUTE:
            near = nearest(recompute, RECOMPUTE)
            raise InputError(
                Problem(None, "recompute", f"'{recompute}'", f"one of: {', '.join(RECOMPUTE)}", near)
            )
        return frozenset() if recompute == "none" else SELECTIVE
    for name in recompute:
        if name not in MODULES:
            wanted = f"modules of: {', '.join(MODULES)}"
            raise InputError(Problem(None, "recompute", f"'{name}'", wanted, nearest(str(name), MODULES)))
    return frozenset(recompute) - (_INSIDE_MOE if "moe" in recompute else frozenset())
