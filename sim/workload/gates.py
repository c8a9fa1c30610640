"""Gates as descriptions: the rule by which tokens choose experts.

``gating`` draws from them, ``recordings`` reads the files that they may name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sim.errors import InputError, Problem, nearest

EXCHANGEABLE_KINDS = ("uniform", "group_limited", "balanced", "deepep_benchmark")
POPULARITY_KINDS = ("zipf", "dirichlet", "lognormal", "loads")
KINDS = (*EXCHANGEABLE_KINDS, *POPULARITY_KINDS, "trace")


@dataclass(frozen=True, slots=True)
class Gate:
    """Rule by which tokens choose experts.

    Parameters
    ----------
    kind : str
        One of ``KINDS``.
    num_groups, top_groups : int or None [count]
        A token's experts lie in at most ``top_groups`` of ``num_groups`` equal runs of consecutive experts.
        None: no limit, where the kind allows it.
    group_score : str
        What ranks the groups: "top2_sum" (DeepSeek-V3) or "max" (DeepSeek-V2, DeepEP's benchmark).
    exponent : float
        zipf: popularity of the r-th most popular expert is proportional to ``r**-exponent``.
    alpha : float
        dirichlet: concentration; large is uniform.
    loads : tuple of float or None
        loads: relative load of each expert, [num_experts]; of the first layer, where there are `layers`.
    trace : array or None
        trace: expert ids of recorded tokens, [num_recorded, top_k].
    spread : float
        lognormal: standard deviation of the logarithm of an expert's popularity.
    drift : float, 0 to 1
        lognormal: part of the variance of the logarithm that is drawn anew after the placement was planned; 0: it was planned
        with the popularity that is used, 1: with an independent one.
    capacity_factor : float or None
        Most tokens of a rank that an expert takes, over those of an even gate; the rest are dropped. None: no limit.
    layers : tuple of tuples of float
        loads: those of each layer, [num_layers, num_experts]; empty where all layers have the same.
    """

    kind: str
    num_groups: int | None = None
    top_groups: int | None = None
    group_score: str = "top2_sum"
    exponent: float = 0.0
    alpha: float = 1.0
    loads: tuple[float, ...] | None = None
    trace: NDArray[np.int32] | None = field(default=None, compare=False)
    spread: float = 0.0
    drift: float = 0.0
    capacity_factor: float | None = None
    layers: tuple[tuple[float, ...], ...] = ()

    def layer_gate(self, layer: int) -> Gate:
        """The gate of one of the model's layers with experts, which take those of a recording in turn."""
        return replace(self, loads=self.layers[layer % len(self.layers)], layers=()) if self.layers else self

    @property
    def is_exchangeable(self) -> bool:
        """True where relabelling experts inside a group, or whole groups, leaves a token's law unchanged."""
        return self.kind in EXCHANGEABLE_KINDS

    @property
    def limits_groups(self) -> bool:
        """True where the group limit excludes any group."""
        if self.top_groups is None or self.num_groups is None:
            return False
        return self.top_groups < self.num_groups


def complete(
    gate: Gate,
    *,
    num_nodes: int,
    model_num_groups: int = 1,
    model_top_groups: int = 1,
    model_group_score: str = "top2_sum",
) -> Gate:
    """Fill in the groups that a gate leaves open.

    Parameters
    ----------
    gate : Gate
    num_nodes : int [count]
        Nodes of the EP group.
    model_num_groups, model_top_groups : int [count]
        Groups of the model's own gate, and their limit.
    model_group_score : str
        Score that ranks the groups in the model's own gate.

    Returns
    -------
    Gate

    Notes
    -----
    DeepEP's benchmark has one group per node, keeps ``min(num_nodes, 4)`` and ranks by the maximum; every other kind takes the
    number of groups of the model, and ``group_limited`` its limit and its score as well.

    Examples
    --------
    >>> complete(Gate("deepep_benchmark"), num_nodes=8).top_groups
    4
    """
    if gate.kind == "deepep_benchmark":
        return replace(
            gate,
            num_groups=gate.num_groups or num_nodes,
            top_groups=gate.top_groups or min(num_nodes, 4),
            group_score="max",
        )
    if gate.kind == "group_limited":
        if gate.num_groups is None and gate.top_groups is None:
            gate = replace(gate, group_score=model_group_score)
        return replace(
            gate,
            num_groups=gate.num_groups or model_num_groups,
            top_groups=gate.top_groups or model_top_groups,
        )
    if gate.top_groups is not None and gate.num_groups is None:
        return replace(gate, num_groups=model_num_groups)
    return gate


def check(gate: Gate, num_experts: int, top_k: int) -> None:
    """Check that a gate can choose ``top_k`` of ``num_experts``.

    Parameters
    ----------
    gate : Gate
    num_experts, top_k : int [count]

    Raises
    ------
    InputError
        With every reason why it cannot.
    """
    problems: list[Problem] = []

    def problem(key: str, got: object, wanted: str) -> None:
        problems.append(Problem(None, f"gate.{key}", str(got), wanted))

    if gate.kind not in KINDS:
        near = nearest(gate.kind, KINDS)
        raise InputError(Problem(None, "gate.kind", gate.kind, "one of " + ", ".join(KINDS), near))
    if not 1 <= top_k <= num_experts:
        problem("top_k", top_k, f"1 to {num_experts}, the number of experts")
    if gate.group_score not in ("top2_sum", "max"):
        problem("group_score", gate.group_score, "top2_sum or max")
    needs_groups = gate.kind in ("group_limited", "deepep_benchmark")
    if needs_groups and (gate.num_groups is None or gate.top_groups is None):
        problem("top_groups", gate.top_groups, f"num_groups and top_groups, which a {gate.kind} gate needs")
    if gate.kind in ("uniform", "trace") and gate.top_groups is not None:
        problem("top_groups", gate.top_groups, f"no group limit, which a {gate.kind} gate cannot have")
    if gate.top_groups is not None and gate.num_groups is None:
        problem("num_groups", None, "a number of groups beside top_groups")
    if gate.num_groups is not None and gate.top_groups is not None:
        if gate.num_groups < 1 or num_experts % gate.num_groups:
            problem("num_groups", gate.num_groups, f"a divisor of the number of experts, {num_experts}")
        elif not 1 <= gate.top_groups <= gate.num_groups:
            problem("top_groups", gate.top_groups, f"1 to {gate.num_groups}, the number of groups")
        elif top_k > gate.top_groups * (num_experts // gate.num_groups):
            held = gate.top_groups * (num_experts // gate.num_groups)
            problem("top_groups", gate.top_groups, f"groups with {top_k} experts or more, not {held}")
    if gate.kind == "zipf" and not (math.isfinite(gate.exponent) and gate.exponent >= 0):
        problem("exponent", gate.exponent, "a number of 0 or more")
    if gate.kind == "dirichlet" and not (math.isfinite(gate.alpha) and gate.alpha > 0):
        problem("alpha", gate.alpha, "a number above 0")
    if gate.kind == "lognormal" and not (math.isfinite(gate.spread) and gate.spread >= 0):
        problem("spread", gate.spread, "a number of 0 or more")
    if not 0 <= gate.drift <= 1:
        problem("drift", gate.drift, "0 to 1")
    if gate.capacity_factor is not None and not 0 < gate.capacity_factor < math.inf:
        problem("capacity_factor", gate.capacity_factor, "a number above 0")
    if gate.kind == "loads":
        loads = np.asarray(gate.loads if gate.loads is not None else (), dtype=np.float64)
        if loads.shape != (num_experts,):
            form = "in a row of each layer, or below the header expert,load or layer,expert,load"
            problem("loads", f"{loads.size} numbers", f"{num_experts} numbers, one an expert, {form}")
        elif not np.all(np.isfinite(loads)) or np.any(loads < 0) or loads.sum() <= 0:
            problem("loads", "a negative, infinite or all-zero load", "loads of 0 or more, not all 0")
    if gate.kind == "trace":
        if gate.trace is None or gate.trace.ndim != 2 or gate.trace.shape[0] == 0:
            problem("trace", "no rows", "rows of expert ids, one a token")
        elif gate.trace.shape[1] != top_k:
            problem("trace", f"{gate.trace.shape[1]} experts a token", f"{top_k}, the model's top-k")
        elif gate.trace.min() < 0 or gate.trace.max() >= num_experts:
            problem("trace", f"ids {gate.trace.min()} to {gate.trace.max()}", f"ids 0 to {num_experts - 1}")
        elif top_k > 1 and np.any(np.diff(np.sort(gate.trace, axis=1), axis=1) == 0):
            problem("trace", "a token that lists an expert twice", "distinct experts in each token")
    if problems:
        raise InputError(problems)
