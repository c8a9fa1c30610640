"""Placements: the experts that each rank holds, and the balancer that makes redundant copies.

A *logical* expert is one of the model's; a *physical* expert is one of its replicas on a rank. Physical
experts are numbered rank by rank, every rank holding equally many.

Reference: EPLB, github.com/deepseek-ai/EPLB, whose published example is a test here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.errors import InputError, Problem

IntArray = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Physical experts on the ranks of one EP group.

    Parameters
    ----------
    physical_to_logical : array of int32, [num_physical]
        Logical expert of each physical one; rank r holds the r-th of ``num_ranks`` equal runs.
    num_ranks : int [count]
    num_replicas : array of int32, [num_experts]
        Physical copies of each logical expert.
    replicas : array of int32, [num_experts, max(num_replicas)]
        Physical ids of each logical expert's copies, ascending; filled up with -1.
    """

    physical_to_logical: IntArray
    num_ranks: int
    num_replicas: IntArray
    replicas: IntArray

    @property
    def num_physical(self) -> int:
        """Physical experts in the group."""
        return int(self.physical_to_logical.size)

    @property
    def num_experts(self) -> int:
        """Logical experts of the model."""
        return int(self.num_replicas.size)

    @property
    def experts_per_rank(self) -> int:
        """Physical experts on each rank."""
        return self.num_physical // self.num_ranks

    @property
    def has_replicas(self) -> bool:
        """True where any expert has more than one copy."""
        return self.num_physical != self.num_experts

    def rank_of(self, physical: NDArray[np.integer]) -> NDArray[np.integer]:
        """The rank that holds each of these physical experts."""
        return physical // self.experts_per_rank

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Placement):
            return NotImplemented
        return self.num_ranks == other.num_ranks and np.array_equal(
            self.physical_to_logical, other.physical_to_logical
        )

    def __hash__(self) -> int:
        return hash((self.num_ranks, self.physical_to_logical.tobytes()))


def place(physical_to_logical: ArrayLike, num_ranks: int, num_experts: int | None = None) -> Placement:
    """Place logical experts on ranks, in the order of physical ones.

    Parameters
    ----------
    physical_to_logical : array of int, [num_physical]
        Logical expert of each physical one.
    num_ranks : int [count]
        Must divide the number of physical experts.
    num_experts : int, optional [count]
        Logical experts; by default the highest id plus one.

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        Where ranks would hold unequally many experts, or an expert has no copy.
    """
    logical = np.array(physical_to_logical, dtype=np.int32)
    if logical.ndim != 1 or logical.size == 0:
        raise InputError(
            Problem(None, "placement", f"shape {logical.shape}", "one logical id per physical expert")
        )
    num_experts = int(logical.max()) + 1 if num_experts is None else num_experts
    _check_counts(num_experts, logical.size, num_ranks)
    if logical.min() < 0 or logical.max() >= num_experts:
        raise InputError(
            Problem(
                None, "placement", f"ids {logical.min()} to {logical.max()}", f"ids 0 to {num_experts - 1}"
            )
        )
    counts = np.bincount(logical, minlength=num_experts).astype(np.int32)
    if counts.min() == 0:
        raise InputError(
            Problem(None, "placement", f"no copy of expert {int(counts.argmin())}", "a copy of every expert")
        )
    order = np.argsort(logical, kind="stable")
    first = np.cumsum(counts) - counts
    replicas = np.full((num_experts, int(counts.max())), -1, dtype=np.int32)
    replicas[logical[order], np.arange(logical.size) - first[logical[order]]] = order
    for array in (logical, counts, replicas):
        array.setflags(write=False)
    return Placement(logical, num_ranks, counts, replicas)


def contiguous(num_experts: int, num_ranks: int, redundant: int = 0) -> Placement:
    """Place experts in their order, equally many a rank, one copy of each; copies beyond that begin with the first again.

    Parameters
    ----------
    num_experts, num_ranks, redundant : int [count]

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        Where the ranks do not divide the experts.

    Examples
    --------
    >>> contiguous(256, 64).experts_per_rank
    4
    """
    return place(np.arange(num_experts + redundant) % num_experts, num_ranks, num_experts)


def eplb(loads: ArrayLike, num_physical: int, num_groups: int, num_nodes: int, num_ranks: int) -> Placement:
    """Replicate the heavy experts and pack the replicas so that ranks carry nearly equal load.

    Parameters
    ----------
    loads : array, [num_experts]
        Tokens that each logical expert took, in any unit.
    num_physical, num_groups, num_nodes, num_ranks : int [count]
        Replicas to place; expert groups of the gate; nodes; ranks.

    Returns
    -------
    Placement
        Hierarchical where the groups divide among the nodes (groups are packed onto nodes and replicated inside, so
        group-limited tokens stay on few nodes), else global, as if all were one group on one node.

    Raises
    ------
    InputError
        For loads that are no numbers of 0 or more, and counts that do not divide.

    Notes
    -----
    Single precision, stable order and the first of equals, as published: a tie decided otherwise moves replicas.

    References
    ----------
    github.com/deepseek-ai/EPLB, whose published example is this one.

    Examples
    --------
    >>> loads = [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86]
    >>> eplb(loads, 16, 4, 2, 8).physical_to_logical.tolist()
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1]
    """
    weight = np.asarray(loads, dtype=np.float32)
    if weight.ndim != 1 or weight.size == 0 or not np.all(np.isfinite(weight)) or np.any(weight < 0):
        raise InputError(Problem(None, "loads", f"shape {weight.shape}", "one load of 0 or more per expert"))
    num_experts = weight.size
    _check_counts(num_experts, num_physical, num_ranks)
    if num_groups < 1 or num_nodes < 1 or num_groups % num_nodes:
        num_groups, num_nodes = 1, 1
    for key, whole, part in (
        ("num_groups", num_experts, num_groups),
        ("num_nodes", num_physical, num_nodes),
        ("num_nodes", num_ranks, num_nodes),
    ):
        if whole % part:
            raise InputError(Problem(None, key, str(part), f"a divisor of {whole}"))

    # Groups onto nodes: `by_node` lists the experts node after node.
    group_size = num_experts // num_groups
    node, place_in_node = _pack(weight.reshape(num_groups, group_size).sum(axis=1), num_nodes)
    groups = np.empty(num_groups, dtype=np.int64)
    groups[node * (num_groups // num_nodes) + place_in_node] = np.arange(num_groups)
    by_node = (groups[:, None] * group_size + np.arange(group_size)).reshape(num_nodes, -1)

    physical: list[NDArray[np.int64]] = []
    for experts in by_node:
        copy_of, num_copies = _replicate(weight[experts], num_physical // num_nodes)
        load = (weight[experts] / num_copies)[copy_of]
        rank, place_in_rank = _pack(load, num_ranks // num_nodes)
        at = np.empty(copy_of.size, dtype=np.int64)
        at[rank * (num_physical // num_ranks) + place_in_rank] = np.arange(copy_of.size)
        physical.append(experts[copy_of[at]])
    return place(np.concatenate(physical), num_ranks, num_experts)


def per_microbatch(loads: ArrayLike, num_ranks: int, ranks_per_node: int, redundant: int) -> Placement:
    """Keep experts in their order, and copy the busiest of each node to other ranks of it.

    Parameters
    ----------
    loads : array, [num_experts]
        Tokens that each expert takes in this microbatch.
    num_ranks, ranks_per_node : int [count]
    redundant : int [count]
        Copies of all ranks, equally many of each.

    Returns
    -------
    Placement
        The last of a rank's experts are its copies.

    Notes
    -----
    Copy by copy, the lightest rank of a node that has room takes the busiest expert that it does not hold of the busiest rank.
    A rank for which that would make none lighter has a second copy of its own.
    """
    weight = np.asarray(loads, dtype=np.float32)
    _check_counts(weight.size, weight.size + redundant, num_ranks)
    each, spare = weight.size // num_ranks, redundant // num_ranks
    held = np.empty((num_ranks, each + spare), dtype=np.int64)
    held[:, :each] = np.arange(weight.size).reshape(num_ranks, each)
    held[:, each:] = -1
    for first in range(0, num_ranks, ranks_per_node):
        _copy_inside(weight, held[first : first + ranks_per_node], each)
    return place(held.ravel(), num_ranks, weight.size)


def _copy_inside(weight: NDArray[np.float32], held: NDArray[np.int64], each: int) -> None:
    """Fill the places of a node's ranks that are -1, `held` [ranks, places]; the first `each` of a rank are its own."""
    copies = np.bincount(held[held >= 0], minlength=weight.size)

    def loads() -> NDArray[np.float32]:
        """Load of each rank; an empty place has none."""
        by_rank: NDArray[np.float32] = np.append(weight / np.maximum(copies, 1), 0.0)[held].sum(axis=1)
        return by_rank

    for _ in range(int((held < 0).sum())):
        load, share = loads(), np.append(weight / np.maximum(copies, 1), 0.0)
        rank = int(np.argmin(np.where((held < 0).any(axis=1), load, np.inf)))  # the lightest with room
        others = held[np.argsort(-load, kind="stable")]  # of the busiest rank first, its busiest expert first
        wanted = others[
            np.arange(len(held))[:, None], np.argsort(-share[others], axis=1, kind="stable")
        ].ravel()
        new = wanted[(wanted >= 0) & ~np.isin(wanted, held[rank])]
        place_in_rank = int(np.argmax(held[rank] < 0))
        for expert in new[:1]:
            held[rank, place_in_rank] = expert
            copies[expert] += 1
            if loads().max() <= load.max():
                break
            copies[expert] -= 1
            held[rank, place_in_rank] = -1
        if held[rank, place_in_rank] < 0:
            held[rank, place_in_rank] = held[rank, 0]
            copies[held[rank, 0]] += 1


def copied(placement: Placement) -> IntArray:
    """List the copies of `per_microbatch` beyond the experts in their order, by the ranks that they come from and go to.

    [num_copies, 2], without those that a rank has of its own expert.
    """
    held = placement.physical_to_logical.reshape(placement.num_ranks, -1)
    each = placement.num_experts // placement.num_ranks
    target = np.repeat(np.arange(placement.num_ranks), held.shape[1] - each)
    source = held[:, each:].ravel() // each
    pairs: IntArray = np.stack([source, target], axis=1)[source != target].astype(np.int32)
    return pairs


def _replicate(
    weight: NDArray[np.float32], num_physical: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """One copy of each expert, then a copy at a time to the one with the highest load per copy.

    Returns the expert of each copy, [num_physical], and the copies of each expert, [num_experts].
    """
    copy_of = np.arange(num_physical)
    num_copies = np.ones(weight.size, dtype=np.float32)
    for new in range(weight.size, num_physical):
        busiest = int(np.argmax(weight / num_copies))
        copy_of[new] = busiest
        num_copies[busiest] += 1
    return copy_of, num_copies


def _pack(weight: NDArray[np.float32], num_packs: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Deal items into packs of equal size, heaviest first, each to the lightest pack with room.

    Returns pack and place within the pack of each item, two arrays [num_items].
    """
    room = weight.size // num_packs
    pack, place_in_pack = np.arange(weight.size), np.zeros(weight.size, dtype=np.int64)
    if room == 1:  # nothing to balance: the published algorithm leaves the order as it is
        return pack, place_in_pack
    load = np.zeros(num_packs, dtype=np.float32)
    held = np.zeros(num_packs, dtype=np.int64)
    for item in np.argsort(-weight, kind="stable"):
        lightest = int(np.argmin(np.where(held < room, load, np.inf)))
        pack[item], place_in_pack[item] = lightest, held[lightest]
        load[lightest] += weight[item]
        held[lightest] += 1
    return pack, place_in_pack


def _check_counts(num_experts: int, num_physical: int, num_ranks: int) -> None:
    if num_ranks < 1 or num_physical % num_ranks:
        per_rank = -(-num_physical // max(num_ranks, 1))
        raise InputError(
            Problem(
                None,
                "ep",
                f"{num_physical} experts on {num_ranks} ranks",
                "equally many experts on each rank",
                f"{per_rank * num_ranks - num_experts} redundant experts" if num_ranks > 0 else None,
            )
        )
    if num_physical < num_experts:
        raise InputError(
            Problem(
                None, "redundant_experts", f"{num_physical} places", f"one for each of {num_experts} experts"
            )
        )
