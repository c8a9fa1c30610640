"""Stages: the layers, embedding, output head and extra prediction modules of each pipeline stage.

The embedding belongs to the first stage; the output head and the multi-token-prediction (MTP) modules, which
end in the same head, belong to the last. The layers between are cut where the costliest stage becomes
cheapest.

Why this way: stages of a real model are not alike, and a pipeline is as fast as its slowest rank, so
schedules are replayed with the layers that each stage really holds. The cut is a rule over estimated cost; no
model has a case of its own.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.errors import InfeasibleError, InputError, Problem
from sim.workload.model import Model, layer_parameters, parameters
from sim.workload.shape import Layer
from sim.workload.stage_layouts import read_stage_layout


@dataclass(frozen=True, slots=True)
class Stage:
    """Contents of one pipeline stage.

    Parameters
    ----------
    layers : tuple of int
        Indices of the model's layers, ascending.
    num_dense, num_moe : int [count]
        How many of them are dense, how many have experts.
    embedding, head : bool
    num_mtp : int [count]
        MTP modules: a projection, a layer with experts, and another pass through the head.
    num_mtp_before : int [count]
        Modules on stages before this one; where it holds the head, they pass through it too.
    """

    index: int
    layers: tuple[int, ...]
    num_dense: int
    num_moe: int
    embedding: bool
    head: bool
    num_mtp: int
    num_mtp_before: int = 0

    def kinds(self, model: Model, num_mtp: int) -> dict[Layer, int]:
        """Its layers, with so many MTP modules' own, by kind and number."""
        layers = [*(model.layer(i) for i in self.layers), *[model.layer(model.num_layers)] * num_mtp]
        return dict(Counter(layers))

    @property
    def num_head_passes(self) -> int:
        """Times that a token goes through the output head."""
        return self.num_mtp_before + self.num_mtp + 1 if self.head else 0

    @property
    def num_expert_layers(self) -> int:
        """Layers with experts, those of MTP modules included."""
        return self.num_moe + self.num_mtp

    def __str__(self) -> str:
        parts = (
            ("embedding", self.embedding),
            (f"{self.num_dense} dense", self.num_dense),
            (f"{self.num_moe} MoE", self.num_moe),
            ("head", self.head),
            (f"{self.num_mtp} MTP", self.num_mtp),
        )
        return " + ".join(name for name, there in parts if there)


@dataclass(frozen=True, slots=True)
class StageParameters:
    """Parameters of a stage [count]: routed experts, the rest of its layers, embedding table, output head."""

    experts: int
    layers: int
    embedding: int
    head: int


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """Estimated cost of what a stage can hold, in any one unit; an embedding costs nothing."""

    layers: tuple[float, ...]  # [num_layers]
    head: float
    mtp: float  # with its own pass through the head


def flops_per_token(model: Model, sequence_tokens: int = 4096) -> LayerCosts:
    """Estimate the forward FLOPs of one token in each part of a model, with causal attention.

    Parameters
    ----------
    model : Model
    sequence_tokens : int [tokens]

    Returns
    -------
    LayerCosts [FLOP]

    Notes
    -----
    2 FLOP for each active matrix parameter, and the attention core of each layer, see `attention`.
    """

    def forward(layer: Layer) -> float:
        core = layer.attention.core_flops(sequence_tokens, causal=True) if layer.attention else 0.0
        count = layer_parameters(model, layer)
        return 2.0 * (count.active - count.norms) + core

    costs = {layer: forward(layer) for layer in model.layers()}
    head = 2.0 * model.vocab * model.hidden
    return LayerCosts(
        layers=tuple(costs[model.layer(layer_idx)] for layer_idx in range(model.num_layers)),
        head=head,
        mtp=2.0 * 2 * model.hidden**2 + forward(model.layer(model.num_layers)) + head,
    )


def stages(
    model: Model,
    num_stages: int,
    *,
    costs: LayerCosts | None = None,
    num_layers: Sequence[int] | None = None,
    layout: str | None = None,
) -> tuple[Stage, ...]:
    """Cut a model into pipeline stages.

    Parameters
    ----------
    model : Model
    num_stages : int [count]
    costs : LayerCosts, optional
        Costs to balance; forward FLOPs of a 4,096-token sequence where left out.
    num_layers : sequence of int, optional [count]
        Layers of each stage, instead of the balanced cut.
    layout : str, optional
        Layers and MTP modules of each stage as Megatron-LM writes them, see `stage_layouts`.

    Returns
    -------
    tuple of Stage, [num_stages]

    Raises
    ------
    InfeasibleError
        With more stages than layers.
    InputError
        Where `num_layers` or `layout` does not fit.

    Notes
    -----
    The costliest stage becomes as cheap as can be; among the cuts that reach this, the sum of squares as small as can be; among
    these, earlier stages take the layers left over. A last stage may hold the head without a layer.

    Examples
    --------
    >>> from sim.workload.model import load_model
    >>> [str(stage) for stage in stages(load_model("deepseek-v3"), 16)][::15]
    ['embedding + 3 dense + 1 MoE', '1 MoE + head + 1 MTP']
    """
    if num_stages < 1:
        raise InputError(Problem(None, "layout.pp", f"{num_stages} stages", "at least 1"))
    mtp = (0,) * (num_stages - 1) + (model.num_mtp_layers,)
    if layout is not None:
        blocks = read_stage_layout(layout, num_stages, model.num_layers, model.num_mtp_layers)
        cuts, mtp = tuple(b.num_layers for b in blocks), tuple(b.num_mtp for b in blocks)
    elif num_layers is not None:
        given = tuple(num_layers)
        if len(given) != num_stages or sum(given) != model.num_layers or min(given) < 0:
            wanted = f"{num_stages} numbers that add up to the {model.num_layers} layers of {model.name}"
            raise InputError(Problem(None, "stages", f"layers {list(given)}", wanted))
        cuts = given
    elif num_stages > model.num_layers:
        raise InfeasibleError(
            f"{num_stages} pipeline stages are more than the {model.num_layers} layers of {model.name}"
        )
    else:
        cuts = _balanced(model, num_stages, costs or flops_per_token(model))
    made, first = [], 0
    for index, count in enumerate(cuts):
        layers = tuple(range(first, first + count))
        first += count
        num_dense = sum(model.is_dense(layer) for layer in layers)
        last = index == num_stages - 1
        before = sum(mtp[:index])
        made.append(Stage(index, layers, num_dense, count - num_dense, index == 0, last, mtp[index], before))
    return tuple(made)


@functools.lru_cache(maxsize=256)
def _balanced(model: Model, num_stages: int, costs: LayerCosts) -> tuple[int, ...]:
    """Layers of each stage, by dynamic programming over the place of each cut."""
    n = model.num_layers
    upto = np.concatenate([[0.0], np.cumsum(costs.layers)])
    inner = upto[None, :] - upto[:, None]  # [first, end], cost of the layers first..end-1
    inner[np.tril_indices(n + 1)] = np.inf
    last = inner.copy()
    np.fill_diagonal(last, 0.0)  # the head alone
    last += costs.head + model.num_mtp_layers * costs.mtp
    if num_stages == 1:
        return (n,)

    worst = inner[0]  # [end], costliest stage so far
    for stage in range(1, num_stages):
        worst = np.maximum(worst[:, None], last if stage == num_stages - 1 else inner).min(axis=0)
    limit = worst[n] * (1 + 1e-9)

    total = np.where(inner[0] <= limit, inner[0] ** 2, np.inf)  # [end], sum of squares so far
    choices = []
    for stage in range(1, num_stages):
        own = last if stage == num_stages - 1 else inner
        sums = total[:, None] + np.where(own <= limit, own**2, np.inf)
        total = sums.min(axis=0)
        # Of equal cuts the latest, so that layers left over go to earlier stages; equal but for rounding,
        # that is.
        as_good = sums <= total * (1 + 1e-12)
        choices.append(n - np.argmax(as_good[::-1], axis=0))
    ends = [n]
    for choice in reversed(choices):
        ends.append(int(choice[ends[-1]]))
    ends.append(0)
    return tuple(end - first for end, first in itertools.pairwise(ends))[::-1]


def stage_parameters(model: Model, stage: Stage) -> StageParameters:
    """Count the parameters that a stage adds to the model, all of its experts included.

    Parameters
    ----------
    model : Model
    stage : Stage

    Returns
    -------
    StageParameters [count]
        Over all stages they add up to the model and its MTP modules, which share its embedding and head.
    """
    count = parameters(model)
    each = [layer_parameters(model, model.layer(layer_idx)) for layer_idx in stage.layers]
    extra = stage.num_mtp * layer_parameters(model, model.layer(model.num_layers)).routed
    mtp = count.mtp * stage.num_mtp // model.num_mtp_layers if model.num_mtp_layers else 0
    own = sum(layer.others for layer in each) + mtp - extra
    return StageParameters(
        experts=sum(layer.routed for layer in each) + extra,
        layers=own + (model.hidden if stage.head else 0),  # the last norm goes with the head
        embedding=count.embedding if stage.embedding else 0,
        head=count.head if stage.head else 0,
    )


def held_parameters(model: Model, held: Sequence[Stage]) -> StageParameters:
    """Count the parameters of a rank that holds some stages.

    Parameters
    ----------
    model : Model
    held : sequence of Stage

    Returns
    -------
    StageParameters [count]

    Notes
    -----
    MTP modules and a tied head read the embedding table: a rank with them but without the first stage keeps a copy, a rank with
    both keeps one.

    References
    ----------
    DeepSeek-V3, arXiv 2412.19437, section 3.2.3 (shared embedding and head).
    """
    each = [stage_parameters(model, stage) for stage in held]
    table = parameters(model).embedding
    needs_table = any(s.embedding or s.num_mtp or (s.head and model.tied_embeddings) for s in held)
    return StageParameters(
        experts=sum(stage.experts for stage in each),
        layers=sum(stage.layers for stage in each),
        embedding=table if needs_table else 0,
        head=sum(stage.head for stage in each),
    )
