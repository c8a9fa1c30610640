"""Layouts: the split of a run's ranks between pipeline, tensor, context, data and expert parallelism.

Ranks are numbered with tensor parallelism (TP) innermost, then context (CP), then data (DP), pipeline (PP)
outermost, and rank r is GPU r: TP stays inside a node where it fits, an EP group takes consecutive ranks of
one pipeline stage, and pipeline neighbours are a whole stage apart, on the same rail. An EP group cuts
across TP, CP and DP, and where a stage has more ranks than an EP group, the same experts stand on `expert_dp`
ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from sim.errors import InfeasibleError, InputError, Problem
from sim.workload.model import GQA, Model


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Place of a rank in each dimension, from 0; `ep` and `expert_dp` restate `dp`, `cp` and `tp`."""

    pp: int
    dp: int
    cp: int
    tp: int
    ep: int
    expert_dp: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of the parallel dimensions [ranks]: pipeline, expert, tensor, data, context."""

    pp: int = 1
    ep: int = 1
    tp: int = 1
    dp: int = 1
    cp: int = 1

    @property
    def num_ranks(self) -> int:
        """All ranks, one GPU each."""
        return self.pp * self.stage_ranks

    @property
    def stage_ranks(self) -> int:
        """Ranks of one pipeline stage."""
        return self.tp * self.cp * self.dp

    @property
    def expert_dp(self) -> int:
        """Ranks that hold the same experts, and reduce their gradients with one another."""
        return self.stage_ranks // self.ep

    def coordinates(self, rank: int) -> Coordinates:
        """Return the coordinates of a rank."""
        pp, inside = divmod(rank, self.stage_ranks)
        dp, rest = divmod(inside, self.tp * self.cp)
        cp, tp = divmod(rest, self.tp)
        expert_dp, ep = divmod(inside, self.ep)
        return Coordinates(pp, dp, cp, tp, ep, expert_dp)

    def rank(self, pp: int, dp: int = 0, cp: int = 0, tp: int = 0) -> int:
        """The rank at some coordinates."""
        return ((pp * self.dp + dp) * self.cp + cp) * self.tp + tp

    def stage_group(self, pp: int) -> range:
        """Ranks of one pipeline stage."""
        return range(pp * self.stage_ranks, (pp + 1) * self.stage_ranks)

    def ep_group(self, pp: int, expert_dp: int = 0) -> range:
        """Ranks of one EP group."""
        first = pp * self.stage_ranks + expert_dp * self.ep
        return range(first, first + self.ep)

    def expert_dp_group(self, pp: int, ep: int) -> range:
        """Ranks that hold the same experts of a stage."""
        return range(pp * self.stage_ranks + ep, (pp + 1) * self.stage_ranks, self.ep)

    def dp_group(self, pp: int, cp: int = 0, tp: int = 0) -> range:
        """Ranks that hold the same part of everything but the experts, for other sequences."""
        return range(self.rank(pp, 0, cp, tp), (pp + 1) * self.stage_ranks, self.cp * self.tp)

    def tp_group(self, pp: int, dp: int = 0, cp: int = 0) -> range:
        """Ranks that share every matrix of a layer."""
        first = self.rank(pp, dp, cp)
        return range(first, first + self.tp)

    def __str__(self) -> str:
        return " ".join(f"{size.name.upper()}{getattr(self, size.name)}" for size in fields(self))


def derive(
    num_gpus: int,
    *,
    pp: int | None = None,
    ep: int | None = None,
    tp: int | None = None,
    dp: int | None = None,
    cp: int | None = None,
    num_experts: int | None = None,
) -> Layout:
    """Fill in the sizes that a layout leaves out, and check it against the number of GPUs.

    Parameters
    ----------
    num_gpus : int [count]
    pp, ep, tp, dp, cp : int, optional [ranks]
        Sizes that are given. TP and CP default to 1. Where `dp` is left out it takes the GPUs that are left, else `pp` does;
        EP defaults to the largest group of a stage's ranks that divides the experts.
    num_experts : int, optional [count]
        Experts of a layer; without it EP defaults to all ranks of a stage.

    Returns
    -------
    Layout

    Raises
    ------
    InputError
        For sizes below 1.
    InfeasibleError
        Where the sizes do not multiply to the GPUs, or EP groups do not fit into a stage.

    Examples
    --------
    >>> str(derive(2048, pp=16, ep=64))
    'PP16 EP64 TP1 DP128 CP1'
    """
    given = {"pp": pp, "ep": ep, "tp": tp, "dp": dp, "cp": cp, "num_gpus": num_gpus}
    problems = [
        Problem(None, f"layout.{name}", repr(size), "a whole number of at least 1")
        for name, size in given.items()
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1)
    ]
    if problems:
        raise InputError(problems)
    tp, cp = tp or 1, cp or 1
    if dp is None:
        pp = pp or 1
        dp = _rest(num_gpus, PP=pp, TP=tp, CP=cp)
    elif pp is None:
        pp = _rest(num_gpus, DP=dp, TP=tp, CP=cp)
    stage = tp * cp * dp
    if pp * stage != num_gpus:
        raise InfeasibleError(
            f"the layout PP{pp} x TP{tp} x CP{cp} x DP{dp} takes {pp * stage} GPUs; there are {num_gpus}"
        )
    layout = Layout(pp, ep or (math.gcd(stage, num_experts) if num_experts else stage), tp, dp, cp)
    if stage % layout.ep:
        raise InfeasibleError(_ep_misfit(layout))
    return layout


def check(
    layout: Layout,
    model: Model,
    *,
    num_physical_experts: int | None = None,
    sequence_tokens: int | None = None,
    chunks: int = 1,
) -> None:
    """Check that a model can be laid out this way.

    Parameters
    ----------
    layout : Layout
    model : Model
    num_physical_experts : int, optional [count]
        Experts with redundant copies, a layer; the model's own where left out.
    sequence_tokens : int, optional [tokens]
        Length that CP cuts.
    chunks : int [count]
        Stages of each pipeline rank.

    Raises
    ------
    InfeasibleError
        With every reason why it cannot.
    """
    experts = num_physical_experts or model.num_experts
    reasons = []
    if layout.stage_ranks % layout.ep:
        reasons.append(_ep_misfit(layout))
    if experts % layout.ep:
        reasons.append(f"EP{layout.ep} does not divide the {experts} experts of a layer")
    if layout.pp * chunks > model.num_layers:
        reasons.append(
            f"{layout.pp * chunks} pipeline stages are more than "
            f"the {model.num_layers} layers of {model.name}"
        )
    for a in model.attentions():
        if a.num_heads % layout.tp:
            reasons.append(f"TP{layout.tp} does not divide the {a.num_heads} attention heads")
        elif isinstance(a, GQA) and a.num_kv_heads % layout.tp and layout.tp % a.num_kv_heads:
            reasons.append(f"TP{layout.tp} neither divides nor repeats the {a.num_kv_heads} key-value heads")
    for name, width in (
        ("the dense layers", model.dense_hidden),
        ("the shared experts", model.shared_width),
    ):
        if width % layout.tp:
            reasons.append(f"TP{layout.tp} does not divide the inner width {width} of {name}")
    if sequence_tokens is not None and sequence_tokens % layout.cp:
        reasons.append(f"CP{layout.cp} does not divide a sequence of {sequence_tokens} tokens")
    if reasons:
        raise InfeasibleError(f"{layout} is impossible: " + "; ".join(reasons))


def _rest(num_gpus: int, **taken: int) -> int:
    """Return the size of the dimension that was left out: the GPUs over the product of the others."""
    product = math.prod(taken.values())
    if num_gpus % product:
        names = " x ".join(f"{name}{size}" for name, size in taken.items())
        raise InfeasibleError(f"{names} = {product} does not divide the {num_gpus} GPUs")
    return num_gpus // product


def _ep_misfit(layout: Layout) -> str:
    return (
        f"EP{layout.ep} does not divide the {layout.stage_ranks} ranks of a pipeline stage "
        f"(TP{layout.tp} x CP{layout.cp} x DP{layout.dp})"
    )
