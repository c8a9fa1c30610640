"""One forward pass of a deployment: a program of every EP group on the whole cluster, run in time.

A scenario's routing is drawn for a few layers, which the model's layers take in turn. Its all-to-alls are flows on the
cluster (`pass_collectives`), its experts timed at the rows they get (`pass_needs`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sim.cluster import faults
from sim.cluster.topology import Floats, Ints
from sim.cost import serving_kernels as kernels
from sim.cost.curves import load_curves
from sim.cost.work import Part, Work, num_launches, total_s
from sim.engine.step import StepRun, run_step
from sim.engine.step_network import StepNetwork, network_of
from sim.engine.step_plan import Host, StepPlan
from sim.errors import InfeasibleError
from sim.runs import pass_conditions
from sim.runs.pass_collectives import PassCollectives, collectives_of, kernel
from sim.runs.pass_needs import REDUCTION, PassNeeds, common_needs, links, needs_of, tensor_parallel_s
from sim.runs.pass_plan import PassPlan
from sim.runs.step_conditions import conditions_of, named_failure
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import reductions
from sim.schedule.collectives import KINDS
from sim.schedule.programs import Node, Program
from sim.schedule.training import HALVES, PipelineTask, tasks_from_rows

OTHER = "other launches of the software"
_BF16 = 2.0


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """A pass, ready to be run: what was asked for, what it moves, and what it computes."""

    plan: PassPlan
    collectives: PassCollectives
    needs: PassNeeds

    @cached_property
    def experts_s(self) -> Floats:
        """Time of the routed experts, [1, layer draws, microbatch draws, num_ranks] [s]."""
        by_part, drawn = self.needs.by_part, self.collectives.routings
        return np.array(
            [[[by_part["experts", i, j][0] for j in range(len(row))] for i, row in enumerate(drawn)]]
        )

    @cached_property
    def program(self) -> Program:
        """Its nodes with their times, and with the launches of its software."""
        program, issuer = listed_program(self), self.plan.issuer
        return issuer.issued(program) if issuer else program

    @property
    def loads(self) -> Floats:
        """What a second of routed experts is on each rank, as `StepPlan` has it; empty where ranks are alike."""
        return self.experts_s if np.ptp(self.experts_s, axis=-1).any() else np.ones((0, 0, 0, 0))

    @cached_property
    def network(self) -> StepNetwork:
        """Everything that it may have under way, folded."""
        return network_of(self.step_plan(()))

    def at_rates(self, memory: float, scale_up: float, nic: float) -> tuple[Program, float]:
        """The program where memory and links have a fraction of their rates, and routed experts over those of `program`."""
        scenario = pass_conditions.with_rates(self.plan.scenario, memory, scale_up, nic)
        plan = replace(self.plan, scenario=scenario)
        slower = ForwardPass(plan, self.collectives, needs_of(plan, self.collectives))
        experts_s = float(self.experts_s.sum())
        return slower.program, float(slower.experts_s.sum()) / experts_s if experts_s else 1.0

    @cached_property
    def held(self) -> dict[float, PassRecord]:
        """Records of the pass if all stays as it is from one change to the next, as far as they were asked for."""
        return {}

    def step_plan(self, program: Program, *, overlapped: bool = False) -> StepPlan:
        """The same program of every group, as the executor takes it."""
        last = len(self.collectives.routings[0]) - 1
        task = PipelineTask("FB", program, 0, last, overlapped, (), ())
        plan = self.plan
        return StepPlan(
            tasks_from_rows([[task]]),
            self.collectives.traffic,
            plan.num_groups,
            plan.ranks,
            plan.speed,
            loads=self.loads,
            jitter=plan.draws.jitter,
            host=Host.from_software(plan.scenario.software),
        )


@dataclass(frozen=True, slots=True)
class PassRecord:
    """A pass as it ran in the EP group that ended last; all but its ends are means over ranks [s]."""

    group: int
    end_s: Floats  # [num_ranks]
    start_s: Floats  # [nodes]
    finish_s: Floats  # [nodes]
    waited_s: float  # the compute stream stood and waited for a collective
    skew_s: float  # of it the wait for slower ranks
    host_s: float  # the compute stream stood and waited for the host
    busy_s: dict[str, float]  # part -> time on its stream
    ran: StepRun
    begin_s: float = 0.0  # instant of the run at which it began


def forward_pass(plan: PassPlan, like: ForwardPass | None = None) -> ForwardPass:
    """Route, cable and time everything that a pass needs.

    `like` is another of as many tokens of the same deployment, to save time.
    """
    collectives = like.collectives if like else collectives_of(plan)
    forward = ForwardPass(plan, collectives, needs_of(plan, collectives))
    if like and np.array_equal(_alike(forward), _alike(like)):
        vars(forward)["network"] = like.network
    return forward


def forwards(scenario: Scenario, work: Inference, requests: float) -> list[ForwardPass]:
    """The passes of all chunks of a prompt, or the one of a decode step."""
    if work.spec.kind == "decode":
        total = work.total
        plan = (
            PassPlan(scenario, work, requests) if total is None else PassPlan.of_total(scenario, work, total)
        )
        return [forward_pass(plan)]
    whole: list[ForwardPass] = []
    for index in range((work.context_tokens - work.cached_tokens) // work.step_tokens):
        cached = work.cached_tokens + index * work.step_tokens
        if work.total is None:
            plan = PassPlan(scenario, work, requests, cached)
        else:
            plan = PassPlan.of_prompts(scenario, work, work.total, cached)
        whole.append(forward_pass(plan, whole[-1] if whole else None))
    return whole


def _alike(forward: ForwardPass) -> Ints:
    """A number for each rank, the same for ranks whose experts always take as long, [num_ranks]."""
    _, number = np.unique(forward.experts_s.reshape(-1, forward.plan.ranks), axis=1, return_inverse=True)
    return np.asarray(number).ravel()


def with_context(forward: ForwardPass, context_tokens: int) -> ForwardPass:
    """Give a decode step another mean context [tokens], with the same routing, all-to-alls and experts."""
    plan = replace(forward.plan, work=replace(forward.plan.work, context_tokens=context_tokens))
    needs = forward.needs
    common, parts = common_needs(plan, needs.processor, forward.collectives.routings[0][0])
    parts, by_part = {**needs.parts, **parts}, {**needs.by_part, **common}
    other = replace(forward, plan=plan, needs=replace(needs, parts=parts, by_part=by_part))
    vars(other)["network"] = forward.network
    return other


def run(forward: ForwardPass, begin_s: float = 0.0, *, held_s: float = 0.0) -> PassRecord:
    """Run a pass in time, all EP groups at once, without embedding, head and sampling, see `ends`.

    `begin_s` is the instant at which it begins, for faults that come and go, or at which it has run for `held_s`, see
    `conditions_of`; InfeasibleError where a part fails in it for good.
    """
    plan = whole_plan(forward, begin_s, held_s)
    try:
        ran = run_step(plan, keep_tasks=1, network=None if plan.conditions else forward.network)
    except InfeasibleError as error:
        raise named_failure(error, forward.plan.scenario.faults) from None
    return record_of(forward, ran, begin_s)


def whole_plan(forward: ForwardPass, begin_s: float = 0.0, held_s: float = 0.0) -> StepPlan:
    """The pass as the executor takes it, with the faults that come and go after an instant [s]."""
    plan = forward.step_plan(forward.program, overlapped=forward.plan.in_background)
    scenario, cluster, own = forward.plan.scenario, forward.collectives.cluster, forward.plan
    if not cluster.windows and not scenario.faults:
        return plan
    conditions = conditions_of(
        scenario.faults,
        cluster,
        plan.tasks,
        own.gpus[None],
        own.hardware.gpu.scale_up.domain,
        pass_conditions.slowed_nodes(forward.program, forward.at_rates),
        begin_s,
        held_s=held_s,
        links=pass_conditions.link_fractions(scenario, own.layout, own.members),
    )
    return replace(plan, conditions=conditions)


def changes_s(forward: ForwardPass) -> list[float]:
    """Instants at which faults come and go [s]."""
    return faults.changes_s((*forward.plan.scenario.faults, *forward.collectives.cluster.windows))


def record_of(forward: ForwardPass, ran: StepRun, begin_s: float = 0.0) -> PassRecord:
    """Make the record of a pass that began at an instant, from how its plan ran."""
    record = max(ran.records, key=lambda record: float(record.end_s.max()))
    start_s, finish_s = np.array(record.nodes.start_s), np.array(record.nodes.end_s)
    busy: dict[str, float] = {}
    for node, seconds in zip(forward.program, (finish_s - start_s).tolist(), strict=True):
        busy[node.name] = busy.get(node.name, 0.0) + seconds
    return PassRecord(
        group=record.group,
        end_s=record.end_s,
        start_s=start_s,
        finish_s=finish_s,
        waited_s=float(record.tasks.exposed_s.sum()),
        skew_s=float(record.tasks.barrier_s.sum()),
        host_s=float(record.tasks.host_s.sum()),
        busy_s=busy,
        ran=ran,
        begin_s=begin_s,
    )


def listed_program(forward: ForwardPass) -> Program:
    """The nodes of a pass with their times, and with the launches of moesim's own lists."""
    plan, num_drawn = forward.plan, len(forward.collectives.routings)
    blocks = plan.blocks
    layers: dict[int, Hashable] = {-1: ()}  # place among those with experts -> what it shares with like ones
    for place, layer in enumerate(blocks.layers):
        layers[place] = place % num_drawn, plan.layer_kind(layer), blocks.dense_before[place]
    timed: dict[Hashable, list[tuple[int, Any]]] = {}
    program: list[Node] = []
    for node in plan.program():
        like = node.name, node.half, layers[node.layer]
        if like not in timed:
            timed[like] = [(Node._fields.index(name), value) for name, value in _timed(forward, node).items()]
        row = list(node)  # a third of the time of `_replace`
        for place, value in timed[like]:
            row[place] = value
        program.append(Node._make(row))
    return tuple(program)


def _num_launches(forward: ForwardPass, node: Node) -> int:
    """Launches of compute by moesim's own lists [count]; a node of attention runs the dense layers before it too."""
    parts, blocks = forward.needs.parts, forward.plan.blocks
    dense = blocks.dense_after if node.name == "dense" else ()
    if node.name in ("attention", "attention_0"):
        dense = blocks.dense_before[node.layer]
    own = 0 if node.name == "dense" else num_launches(parts.get(node.name, {}))
    return own + len(dense) * num_launches(parts.get("dense", {}))


def alone_s(forward: ForwardPass, direction: str, group: int = 0) -> Floats:
    """Time of an all-to-all next to no compute, those of all EP groups at once, in one group [draws, num_ranks]."""
    kernels_ = forward.collectives.kernels(direction)
    program = tuple(Node(name, "F", 0, name) for name in kernels_)
    ran = run_step(forward.step_plan(program), network=forward.network)
    ends = ran.lane_ends(group)
    starts = np.concatenate([[0.0], ends.max(axis=1)[:-1]])
    times: Floats = ends - starts[:, None]
    return times


def _timed(forward: ForwardPass, node: Node) -> dict[str, Any]:
    """Time and launches of a node of the pass, or the kernel that moves its draw; like nodes have the same."""
    plan = forward.plan
    if node.collective is None and node.name != "experts":
        fixed_s = float(need(forward, node)[0, 0])
        return {"fixed_s": fixed_s, "launches": _num_launches(forward, node)}
    drawn = forward.collectives.draw_idx(node.layer, HALVES.index(node.half))
    if node.collective is None:
        launches = _num_launches(forward, node)
        if forward.loads.size:
            return {"layer": drawn[0], "routed_s": 1.0, "launches": launches}
        return {"fixed_s": float(forward.experts_s[0, *drawn, 0]), "launches": launches}
    held = 0.0
    if plan.has_phases:
        by_part = forward.needs.by_part
        kind = plan.layer_kind(plan.blocks.layers[node.layer])
        held = sum(float(by_part[f"{node.name} {end}", kind, 0][0, 0]) for end in ("send", "receive"))
    return {
        "collective": kernel(node.name, *drawn),
        "barrier": KINDS[plan.work.kernel.kind].barrier,
        "held_s": held,
        "launches": int(held == 0.0),  # else it is sent and received by launches of their own
    }


def need(forward: ForwardPass, node: Node) -> Floats:
    """Add up time [s], FLOPs over their peaks [s] and bytes of HBM of a compute node on healthy GPUs [3, num_ranks].

    A node of attention runs the dense layers before it too.
    """
    blocks, needs = forward.plan.blocks, forward.needs.by_part
    if node.name == "experts":
        return needs["experts", *forward.collectives.draw_idx(node.layer, HALVES.index(node.half))]
    if node.name == "dense":
        return dense_need(forward, blocks.dense_after)
    common = needs[node.name, forward.plan.layer_kind(blocks.layers[node.layer]), 0]
    if node.name in ("attention", "attention_0") and blocks.dense_before[node.layer]:
        return common + dense_need(forward, blocks.dense_before[node.layer])
    return common


def dense_need(forward: ForwardPass, layers: tuple[int, ...]) -> Floats:
    """Needs of dense layers in a row, attention included, [3, num_ranks] as in `need`."""
    whole = np.zeros((3, forward.plan.ranks))
    for layer in layers:
        whole = whole + forward.needs.by_part["dense", forward.plan.layer_kind(layer), 0]
    return whole


def ends(forward: ForwardPass) -> dict[str, Part]:
    """Launches of embedding, head and sampling (`ends`), and of each module that speculates; TP splits the vocabulary."""
    plan, p, tp = forward.plan, forward.needs.processor, forward.plan.layout.tp
    requests = plan.requests * tp  # of the TP group
    tokens = requests * plan.work.step_tokens

    def group_ends(embedded: float, sampled: float) -> Part:
        part = kernels.ends(p, plan.model, embedded, sampled, tp)
        return part if tp == 1 else {**part, REDUCTION: _gathered(plan, embedded, sampled)}

    launches = {"ends": _listed(plan, group_ends(tokens, tokens if plan.decode else requests))}
    for module in range(plan.num_mtp):
        launches[f"speculation {module + 1}"] = {
            **kernels.mtp_join(p, plan.model, plan.requests * plan.work.step_tokens, plan.formats.dense),
            **group_ends(0, requests),
        }
    return launches


def ends_s(forward: ForwardPass, time_s: float = 0.0) -> float:
    """Time of embedding, head, sampling and modules that speculate on the slowest GPU of an instant [s].

    What is dead then is waited for in the layers.
    """
    plan, rates = forward.plan, {"clock": 1.0, "hbm": 1.0}
    cluster, domain = forward.collectives.cluster, plan.hardware.gpu.scale_up.domain
    for fault in plan.scenario.faults:
        acts = fault.quantity in rates and fault.fraction and fault.holds(time_s)
        if acts and fault.gpus(cluster.num_gpus, domain)[plan.gpus].any():
            rates[fault.quantity] = min(rates[fault.quantity], fault.fraction)
    if rates["hbm"] < 1.0:
        p = forward.needs.processor
        slower = replace(p, hbm_bytes_per_s=p.hbm_bytes_per_s * rates["hbm"])
        forward = replace(forward, needs=replace(forward.needs, processor=slower))
    return sum(total_s(part) for part in ends(forward).values()) / rates["clock"]


def _listed(plan: PassPlan, own: Part) -> Part:
    """Launches of the ends with those that the list of the software has besides."""
    listed = plan.scenario.software.launches if plan.scenario.software else None
    more = listed.ends.forward - num_launches(own) if listed and listed.ends else 0
    if more <= 0:
        return own
    return {**own, OTHER: Work(OTHER, "", 0.0, 0.0, more * load_curves().streaming.launch_s, more)}


def between_s(forward: ForwardPass) -> float:
    """Host time between two passes, and of the launches of a pass's ends beyond their own time [s]."""
    plan, software = forward.plan, forward.plan.scenario.software
    if software is None:
        return 0.0
    parts = ends(forward).values()
    launches = 1 if software.graphed(plan.work.spec.kind) else sum(map(num_launches, parts))
    return software.step_s + max(0.0, launches * software.launch_s - sum(map(total_s, parts)))


def _gathered(plan: PassPlan, embedded: float, sampled: float) -> Work:
    """Rows of the embedding summed over a TP group, and logits brought to the ranks that sample them."""
    rates, group = links(plan), (plan.layout.tp, plan.layout.near(plan.scenario.gpus_per_node, "tp"))
    time_s = tensor_parallel_s(plan, embedded) if embedded else 0.0
    time_s += reductions.scatter_s(rates, sampled * plan.model.vocab * _BF16, *group)
    return Work(REDUCTION, "", 0.0, 0.0, time_s, 2)


def reductions_s(forward: ForwardPass) -> dict[str, float]:
    """Time that each part of a pass waits for its groups of TP, CP and ETP, within its compute [s]; none without any."""
    plan, parts, by_part = forward.plan, forward.needs.parts, dict[str, float]()
    if plan.layout.tp * plan.layout.cp == 1 and not plan.layout.gathers_experts:
        return by_part
    nodes = [node.name for node in plan.program() if node.collective is None and node.name != "dense"]
    for name in (*nodes, *["dense"] * len(plan.blocks.dense) * plan.num_microbatches):
        reduced = parts[name].get(REDUCTION) if name in parts else None
        by_part[name] = by_part.get(name, 0.0) + (reduced.time_s if reduced else 0.0)
    return {
        **by_part,
        "ends": sum(part[REDUCTION].time_s for part in ends(forward).values() if REDUCTION in part),
    }
