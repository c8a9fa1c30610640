"""The layout branch of a scenario: sizes that are left out are derived, and checked against model and cluster."""

from __future__ import annotations

import math

from sim.errors import InfeasibleError, InputError
from sim.scenario.draft import Draft, placed_at
from sim.scenario.values import CpComm
from sim.workload import layout as layouts
from sim.workload.attention import GQA, MLA
from sim.workload.layout import Layout


def derived(draft: Draft, **defaults: int) -> Layout:
    """Fill in the layout of a scenario, with defaults where it gives no size.

    InputError for sizes that mean nothing, at their marks; InfeasibleError for sizes that do not multiply to
    the ranks.
    """
    assert draft.model is not None
    asked = {**defaults, **draft.asked.model_dump(exclude_none=True)}
    if (
        draft.asked.ep is None
        and defaults.get("ep") == 1
        and not asked.get("etp")
        and draft.model.num_experts > 1
    ):
        asked["etp"] = 1  # nobody wrote `ep: 1`
    try:
        return layouts.derive(draft.num_ranks, **asked, num_experts=draft.model.num_experts)
    except InputError as error:
        raise InputError(placed_at(draft.document, (), error)) from None


def deployed(draft: Draft) -> Layout | None:
    """The layout of a deployment: by default one pipeline stage and EP over all its ranks, attention data-parallel but for TP and CP.

    None where it has problems, which are added to the draft.
    """
    asked, num_ranks, per_node, model = draft.asked, draft.num_ranks, draft.gpus_per_node, draft.model
    assert model is not None
    before = len(draft.problems)
    pp, tp, cp = asked.pp or 1, asked.tp or 1, asked.cp or 1
    heads = math.gcd(*(a.num_heads for a in model.attentions()))
    if num_ranks % pp or pp > model.num_layers:
        wanted = f"a divisor of the {num_ranks} ranks, and at most the {model.num_layers} layers"
        draft.problem(("layout", "pp"), str(pp), wanted)
        return None
    stage = num_ranks // pp
    shared_out = model.num_experts > 1 and (asked.etp or 1) == 1
    ep, etp = asked.ep or (stage if shared_out else 1), asked.etp or 1
    if stage % ep:
        wanted = (
            draft.divisor_wanted(ep) if pp == 1 else f"a divisor of the {stage} ranks of a pipeline stage"
        )
        draft.problem(("layout", "ep"), str(ep), wanted)
    elif stage % (ep * etp) or model.expert_hidden % etp:
        wanted = f"a divisor of the {stage // ep} ranks that share experts next to EP{ep}, and of their width {model.expert_hidden}"
        draft.problem(("layout", "etp"), str(etp), wanted)
    of = f"the {stage} ranks{' of a pipeline stage' if pp > 1 else ''}"
    if stage % tp or heads % tp:
        draft.problem(("layout", "tp"), str(tp), f"a divisor of {of}, and of the {heads} heads")
    elif tp % per_node and per_node % tp:
        draft.problem(("layout", "tp"), str(tp), f"a multiple or a divisor of the {per_node} GPUs of a node")
    elif stage % (tp * cp) or (tp * cp % per_node and per_node % (tp * cp)):
        wanted = f"a divisor of {of} over TP{tp}, and with TP a multiple or a divisor of the {per_node} GPUs of a node"
        draft.problem(("layout", "cp"), str(cp), wanted)
    elif asked.dp not in (None, stage // (tp * cp)):
        wanted = f"{stage // (tp * cp)}, {of} over TP{' and CP' if cp > 1 else ''}, or leave it out"
        draft.problem(("layout", "dp"), str(asked.dp), wanted)
    if len(draft.problems) > before:
        return None
    layout = derived(draft, pp=pp, ep=ep)
    check_nodes(draft, layout)
    try:
        layouts.check(layout, model, num_physical_experts=ep)  # redundant experts are the placement's
    except InfeasibleError as error:
        draft.problem(("layout", "tp"), str(tp), str(error).partition("impossible: ")[2])
        return None
    return layout if len(draft.problems) == before else None


def check_nodes(draft: Draft, layout: Layout) -> None:
    """Check that EP groups have equally many ranks on each of their nodes; a problem is added to the draft."""
    per_node = draft.gpus_per_node
    near = layout.near(per_node, "ep")
    nodes = layout.groups("ep") // per_node
    if layout.ep % near or (nodes.reshape(-1, near) != nodes.reshape(-1, near)[:, :1]).any():
        wanted = f"a multiple or a divisor of the {per_node} GPUs of a node"
        draft.problem(("layout", "ep"), str(layout.ep), wanted)


def written(layout: Layout, *always: str) -> dict[str, int | str]:
    """Sizes as the resolved scenario has them: some always, others where they are more than 1 or were no default."""
    sizes = {name: getattr(layout, name) for name in ("pp", "ep", "tp", "dp", "cp")}
    kept = {name: size for name, size in sizes.items() if name in always or size > 1}
    told_apart = layout.etp > 1 or (layout.ep == 1 and layout.tp > 1)
    order = {"order": layout.order} if layout.order != layouts.ORDER else {}
    return kept | ({"etp": layout.etp} if told_apart else {}) | order


def check_ring(draft: Draft, cp_comm: CpComm) -> None:
    """Check that the cores of a model can take keys and values block by block, all in one way, as those of a ring do."""
    if cp_comm == "all_gather" or draft.model is None:
        return
    for layer in draft.model.layers():
        a = layer.attention
        full = (isinstance(a, MLA) and a.index is None) or (isinstance(a, GQA) and not (a.window or a.chunk))
        if a is None or not full:
            wanted = f"all_gather: {draft.model.name} has layers whose cores do not see all keys, and a ring serves none of these"
            draft.problem(("workload", "cp_comm"), cp_comm, wanted)
            return
