"""Layouts: the split of a run's ranks between pipeline, tensor, context, data and expert parallelism.

Ranks are numbered in an order of the dimensions, by default `tp-cp-ep-dp-pp`: tensor parallelism (TP) innermost, pipeline
(PP) outermost. Then TP stays inside a node where it fits, an EP group takes consecutive ranks of one pipeline stage, and
pipeline neighbours are a whole stage apart, on the same rail. The order is read twice: attention's ranks have no EP, experts'
ranks no CP, and expert tensor parallelism (ETP) and the ranks that hold the same experts (`expert_dp`) in place of TP and DP.
Both share the pipeline. ETP splits each expert of each of the EP ranks.

`Layout.groups` names the ranks of every group; nobody else divides sizes for them.

Reference: the rank generators of Megatron-LM, megatron/core/parallel_state.py, whose default order this is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from sim.errors import InfeasibleError, InputError, Problem, nearest
from sim.workload.model import GQA, Model

ORDER = "tp-cp-ep-dp-pp"
"""Dimensions from the one in which neighbouring ranks differ to the one in which ranks far apart do."""


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
    """Sizes of the parallel dimensions [ranks]: pipeline, expert, tensor, data, context, and expert tensor."""

    pp: int = 1
    ep: int = 1
    tp: int = 1
    dp: int = 1
    cp: int = 1
    etp: int = 1
    order: str = ORDER

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
        return self.stage_ranks // (self.ep * self.etp)

    @property
    def gathers_experts(self) -> bool:
        """ETP has a group of its own, over which the tokens that came to its ranks are gathered, and their results scattered.

        Without EP, and as large as TP, its ranks are those of TP, whose reduction of a block's output is that of the experts too.
        """
        return self.etp > 1 and (self.ep > 1 or self.etp != self.tp)

    def reduces_experts(self, model: Model, *, shared_whole: bool = False) -> bool:
        """TP reduces what a block of experts returns: shared ones are split by TP unless whole, routed ones by an ETP that is TP.

        Without either the block takes and returns a rank's own part of the sequence (Megatron-LM, sequence parallelism).
        """
        split = model.shared_width > 0 and not shared_whole
        return split or (self.etp > 1 and not self.gathers_experts)

    def _grids(self) -> tuple[dict[str, int], dict[str, int]]:
        """Dimensions of attention and of experts with their sizes, the slowest first."""
        slowest_first = self.order.split("-")[::-1]
        attention = [name for name in slowest_first if name != "ep"]
        swapped = {"tp": "etp", "dp": "expert_dp"}
        experts = [swapped.get(name, name) for name in slowest_first if name != "cp"]
        return {name: getattr(self, name) for name in attention}, {
            name: getattr(self, name) for name in experts
        }

    def groups(self, *dimensions: str) -> NDArray[np.int64]:
        """Name the ranks of every group of a dimension, or of several together.

        Parameters
        ----------
        *dimensions : str
            Of "pp", "dp", "cp", "tp"; or of "pp", "expert_dp", "ep", "etp"; or "world" for all ranks.

        Returns
        -------
        array of int, [num_groups, size]
            Ranks that differ in these coordinates alone, ascending. Each rank is in one group.

        Raises
        ------
        InputError
            For another dimension.

        Examples
        --------
        >>> Layout(pp=2, ep=2, tp=2, dp=2).groups("ep").tolist()
        [[0, 1], [2, 3], [4, 5], [6, 7]]
        >>> Layout(pp=2, ep=2, tp=2, dp=2).groups("dp").tolist()
        [[0, 2], [1, 3], [4, 6], [5, 7]]
        """
        ranks = np.arange(self.num_ranks)
        if dimensions == ("world",):
            return ranks[None]
        for grid in self._grids():
            names = list(grid)
            if grid.keys() >= set(dimensions):
                rows, columns = (
                    [i for i, name in enumerate(names) if (name in dimensions) == own]
                    for own in (False, True)
                )
                shape = list(grid.values())
                size = math.prod(shape[i] for i in columns)
                return ranks.reshape(shape).transpose(*rows, *columns).reshape(-1, size)
        known = ("world", *dict.fromkeys(name for grid in self._grids() for name in grid))
        got, wanted = ", ".join(dimensions), f"one of: {', '.join(known)}"
        raise InputError(Problem(None, "group", f"'{got}'", wanted, nearest(got, known)))

    def stages(self) -> NDArray[np.int64]:
        """Ranks of each pipeline stage, ascending, [pp, stage_ranks]."""
        return self.groups("dp", "cp", "tp")

    def stage_groups(self, *dimensions: str) -> NDArray[np.int64]:
        """Ranks of the groups of each pipeline stage, in the same order on all, [pp, num_groups, size]."""
        stage = np.empty(self.num_ranks, dtype=np.int64)
        stage[self.stages()] = np.arange(self.pp)[:, None]
        groups = self.groups(*dimensions)
        in_order = np.argsort(stage[groups[:, 0]], kind="stable")
        return groups[in_order].reshape(self.pp, -1, groups.shape[1])

    def near(self, gpus_per_node: int, *dimensions: str) -> int:
        """Ranks of a group of some dimensions, as of `groups`, that share a node, of its fullest [count].

        Examples
        --------
        >>> Layout(ep=16, tp=4, dp=4).near(8, "dp")
        2
        """
        return int(np.unique(self.groups(*dimensions)[0] // gpus_per_node, return_counts=True)[1].max())

    def coordinates(self, rank: int) -> Coordinates:
        """Return the coordinates of a rank."""
        at: dict[str, int] = {}
        for grid in self._grids():
            at |= zip(grid, map(int, np.unravel_index(rank, tuple(grid.values()))), strict=True)
        del at["etp"]
        return Coordinates(**at)

    def rank(self, pp: int, dp: int = 0, cp: int = 0, tp: int = 0) -> int:
        """The rank at some coordinates."""
        grid, at = self._grids()[0], {"pp": pp, "dp": dp, "cp": cp, "tp": tp}
        return int(np.ravel_multi_index([at[name] for name in grid], tuple(grid.values())))

    def __str__(self) -> str:
        sizes = {size.name: getattr(self, size.name) for size in fields(self) if size.name != "order"}
        return " ".join(f"{name.upper()}{size}" for name, size in sizes.items() if name != "etp" or size > 1)


def derive(
    num_gpus: int,
    *,
    pp: int | None = None,
    ep: int | None = None,
    tp: int | None = None,
    dp: int | None = None,
    cp: int | None = None,
    etp: int | None = None,
    order: str = ORDER,
    num_experts: int | None = None,
) -> Layout:
    """Fill in the sizes that a layout leaves out, and check it against the number of GPUs.

    Parameters
    ----------
    num_gpus : int [count]
    pp, ep, tp, dp, cp, etp : int, optional [ranks]
        Sizes that are given. TP and CP default to 1. Where `dp` is left out it takes the GPUs that are left, else `pp` does;
        EP defaults to the largest group of a stage's ranks that divides the experts. ETP defaults to TP where EP is given
        as 1, as in Megatron-LM, vLLM and SGLang, and where there is one expert, a dense model's block; else to 1.
    order : str
        The five dimensions with hyphens between, the one in which neighbouring ranks differ first.
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
    given = {"pp": pp, "ep": ep, "tp": tp, "dp": dp, "cp": cp, "etp": etp, "num_gpus": num_gpus}
    problems = [
        Problem(None, f"layout.{name}", repr(size), "a whole number of at least 1")
        for name, size in given.items()
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1)
    ]
    if sorted(order.split("-")) != sorted(ORDER.split("-")):
        problems.append(Problem(None, "layout.order", f"'{order}'", f"each of {ORDER} once, in any order"))
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
    splits = (ep == 1 and num_experts != 0) or num_experts == 1
    ep = ep or (1 if etp and etp > 1 else math.gcd(stage, num_experts) if num_experts else stage)
    etp = etp or (tp if splits else 1)
    layout = Layout(pp, ep, tp, dp, cp, etp, order)
    if stage % (layout.ep * layout.etp):
        raise InfeasibleError(_ep_misfit(layout))
    if not np.array_equal(layout.stages(), layout.groups("expert_dp", "ep", "etp")):
        wanted = "pp last, or what is before it equally large for attention and experts: they share pipeline stages"
        raise InputError(Problem(None, "layout.order", f"'{order}'", wanted))
    return layout


def check(
    layout: Layout,
    model: Model,
    *,
    num_physical_experts: int | None = None,
    sequence_tokens: int | None = None,
    chunks: int = 1,
    stages_given: bool = False,
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
    stages_given : bool
        True where the blocks of each stage are written down, so that one may have the embedding or the head alone.

    Raises
    ------
    InfeasibleError
        With every reason why it cannot.
    """
    experts = num_physical_experts or model.num_experts
    reasons = []
    if layout.stage_ranks % (layout.ep * layout.etp):
        reasons.append(_ep_misfit(layout))
    if experts % layout.ep:
        reasons.append(f"EP{layout.ep} does not divide the {experts} experts of a layer")
    if layout.pp * chunks > model.num_layers and not stages_given:
        reasons.append(
            f"{layout.pp * chunks} pipeline stages are more than "
            f"the {model.num_layers} layers of {model.name}"
        )
    for a in model.attentions():
        if a.num_heads % layout.tp:
            reasons.append(f"TP{layout.tp} does not divide the {a.num_heads} attention heads")
        elif isinstance(a, GQA) and a.num_kv_heads % layout.tp and layout.tp % a.num_kv_heads:
            reasons.append(f"TP{layout.tp} neither divides nor repeats the {a.num_kv_heads} key-value heads")
    for name, width, size in (
        ("the dense layers", model.dense_hidden, layout.tp),
        ("the shared experts", model.shared_width, layout.tp),
        ("the experts", model.expert_hidden if model.num_experts else 0, layout.etp),
    ):
        if width % size:
            reasons.append(
                f"{'ETP' if name == 'the experts' else 'TP'}{size} does not divide the inner width {width} of {name}"
            )
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
        f"EP{layout.ep}{f' x ETP{layout.etp}' if layout.etp > 1 else ''} does not divide "
        f"the {layout.stage_ranks} ranks of a pipeline stage "
        f"(TP{layout.tp} x CP{layout.cp} x DP{layout.dp})"
    )


def split_experts(model: Model, etp: int) -> Model:
    """Cut the routed experts of a model as one rank of ETP has them: of a part of the width, which ETP divides.

    Shared experts, which TP splits, are as wide together as they were.
    """
    if etp == 1 or not model.num_experts:
        return model
    return replace(
        model, expert_hidden=model.expert_hidden // etp, num_shared_experts=model.num_shared_experts * etp
    )
