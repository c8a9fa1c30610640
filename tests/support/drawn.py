"""Scenarios of every kind, drawn at random, and harm done to their machines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.documents import Document
from sim.runs.run import run_scenario
from sim.scenario.descriptions import Scenario
from sim.scenario.resolve import resolve

Tree = dict[str, Any]


def law(few: int, many: int = 300, **drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """Hold a property on a few examples always, and on many in the slow suite."""

    def held(check: Callable[..., None]) -> Any:
        counts = [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.slow)]

        @pytest.mark.parametrize("examples", counts)
        def test(examples: int) -> None:
            settings(max_examples=examples)(given(**drawn)(check))()

        test.__name__ = test.__qualname__ = check.__name__
        test.__module__, test.__doc__ = check.__module__, check.__doc__
        return test

    return held


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A scenario in parts, so that each can be made worse."""

    workload: Tree
    hardware: str | None = None
    """None of bare hosts, whose `fabric` says all."""
    nodes: int = 1
    fabric: Tree = field(default_factory=dict)
    machine: dict[str, float] = field(default_factory=dict)
    """Parameter of the profile -> factor."""
    kernel: dict[str, float] = field(default_factory=dict)
    """Parameter of the all-to-all kernels -> factor."""
    slow: dict[tuple[int, int], float] = field(default_factory=dict)
    """Node and NIC -> part of the healthy rate that is left."""
    model: str | None = None
    layout: Tree = field(default_factory=dict)
    fidelity: str = "flow"
    seed: int = 0
    file: str = ""
    """Contents of `drawn.csv`, which a workload of flows or a recorded gate reads."""

    def tree(self) -> Tree:
        """The scenario as its file has it."""
        cluster: Tree = {"fabric": self.fabric} if self.fabric else {}
        if self.hardware:
            override = {"gpu.hbm.capacity": "10 PB"} | _scaled(
                load_hardware(self.hardware).parameters, self.machine
            )
            faults = [
                {"node": node, "nic": nic, "bandwidth": f"{100 * part!r} %"}
                for (node, nic), part in self.slow.items()
            ]
            cluster |= {
                "hardware": self.hardware,
                "nodes": self.nodes,
                "override": override,
                "faults": faults,
            }
        workload = dict(self.workload)
        if self.kernel:
            known = load_kernel(workload["kernel"]["kind"]).parameters
            workload["kernel"] = workload["kernel"] | {"override": _scaled(known, self.kernel)}
        parts = {"model": self.model, "layout": self.layout}
        return {
            "name": "drawn", "seed": self.seed, "fidelity": self.fidelity, "cluster": cluster, "workload": workload,
            **{key: value for key, value in parts.items() if value},
        }  # fmt: skip

    def resolved(self) -> Scenario:
        """The scenario, checked."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "drawn.csv").write_text(self.file)
            return resolve(Document(self.tree(), "drawn", folder=Path(folder)))

    def ran(self) -> dict[str, Any]:
        """Its result."""
        return run_scenario(self.resolved())


_UNITS = {"bytes/s": " B/s", "flop/s": " FLOP/s", "Hz": " Hz", "s": " s", "fraction": "", "number": ""}


def _scaled(parts: Any, factors: dict[str, float]) -> dict[str, str]:
    """Parameters times their factors, as an override has them; those that a file does not have are left out."""
    return {
        part.path: f"{part.value * factors[part.path]!r}{_UNITS[part.dimension]}"
        for part in parts
        if part.path in factors
    }


# --- harm -----------------------------------------------------------------------------------------------------------

Harm = Callable[[Drawn, float], Drawn]


def _machine(path: str, *, more: bool = False) -> Harm:
    def harm(drawn: Drawn, factor: float) -> Drawn:
        now = drawn.machine.get(path, 1.0)
        return replace(drawn, machine=drawn.machine | {path: now * factor if more else now / factor})

    return harm


def _kernel(path: str, *, more: bool = False) -> Harm:
    def harm(drawn: Drawn, factor: float) -> Drawn:
        paths = (
            [f"{path}{way}" for way in (".dispatch", ".combine")]
            if path != "nic_efficiency_fraction"
            else [path]
        )
        return replace(drawn, kernel=drawn.kernel | dict.fromkeys(paths, factor if more else 1 / factor))

    return harm


def _fewer_uplinks(drawn: Drawn, factor: float) -> Drawn:
    return replace(
        drawn, fabric=drawn.fabric | {"oversubscription": drawn.fabric["oversubscription"] * factor}
    )


def _slower_nic(drawn: Drawn, factor: float) -> Drawn:
    at = (drawn.nodes - 1, 1)
    return replace(drawn, slow=drawn.slow | {at: drawn.slow.get(at, 1.0) / factor})


def _slower_rail(drawn: Drawn, factor: float) -> Drawn:
    for node in range(drawn.nodes):
        at = (node, 2)
        drawn = replace(drawn, slow=drawn.slow | {at: drawn.slow.get(at, 1.0) / factor})
    return drawn


HARM: dict[str, Harm] = {
    "scale-up": _machine("gpu.scale_up.bandwidth"),
    "NICs": _machine("nic.bandwidth"),
    "PCIe": _machine("gpu.pcie.bandwidth"),
    "HBM": _machine("gpu.hbm.bandwidth"),
    "latency across leaves": _machine("fabric.cross_leaf_latency", more=True),
    "uplinks": _fewer_uplinks,
    "one NIC": _slower_nic,
    "one rail": _slower_rail,
}
"""Damage to the network -> the scenario after it, a factor worse."""
KERNEL_HARM: dict[str, Harm] = {
    "NIC efficiency": _kernel("nic_efficiency_fraction"),
    "scale-up efficiency": _kernel("scale_up_efficiency_fraction"),
    "copies in a node": _kernel("copy_rate.single_node"),
    "copies over NICs": _kernel("copy_rate.over_nic"),
    "fixed time in a node": _kernel("latency.single_node", more=True),
    "fixed time over NICs": _kernel("latency.over_nic", more=True),
    "fixed time of nodes": _kernel("latency.per_doubling", more=True),
    "fixed time of peers": _kernel("latency.per_remote_peer", more=True),
    "HBM touches": _kernel("hbm_touches", more=True),
}
"""Damage to all-to-all kernels."""
COMPUTE_HARM: dict[str, Harm] = {
    "BF16": _machine("gpu.dense_flops.bf16"),
    "FP8": _machine("gpu.dense_flops.fp8"),
    "streaming": _machine("gpu.hbm.efficiency_fraction"),
    "clock": _machine("gpu.sustained_clock_fraction"),
}
"""Damage to what computes."""

FACTORS = st.sampled_from([1.0009765625, 1.5, 2.0, 16.0])

# --- machines -------------------------------------------------------------------------------------------------------


def machines(max_nodes: int, routings: tuple[str, ...]) -> st.SearchStrategy[Tree]:
    """Parts of `Drawn` that are the machine: any bottleneck, any of the fabrics, some slow NICs."""
    factors = st.dictionaries(
        st.sampled_from(
            ["gpu.scale_up.bandwidth", "nic.bandwidth", "gpu.pcie.bandwidth", "gpu.hbm.bandwidth"]
        ),
        st.sampled_from([0.1, 0.5, 4.0]),
        max_size=2,
    )
    fabric = st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["rail_optimized", "multi_plane", "three_tier", "rail_only"]),
            "routing": st.sampled_from(routings),
            "oversubscription": st.sampled_from([1.0, 1.0, 3.0]),
        },
    )
    slow = st.dictionaries(st.tuples(st.just(0), st.integers(0, 7)), st.sampled_from([0.25, 0.9]), max_size=2)
    return st.fixed_dictionaries(
        {
            "hardware": st.sampled_from(["h800", "h100", "a100", "b200", "h20"]),
            "nodes": st.integers(1, max_nodes),
            "fabric": fabric,
            "machine": factors,
            "slow": slow,
            "leaf": st.sampled_from([1, 2, 32]),
        }
    ).map(_with_leaf)


def _with_leaf(parts: Tree) -> Tree:
    leaf, fabric = parts.pop("leaf"), parts["fabric"]
    whole = 32 if fabric["kind"] == "rail_only" else leaf  # whose one leaf must hold all nodes
    return parts | {"fabric": fabric | {"nodes_per_leaf": whole}}


# --- collectives ----------------------------------------------------------------------------------------------------

KERNELS = st.sampled_from(
    [
        {"kind": "two_hop"},
        {"kind": "two_hop", "comm_sms": 6},
        {"kind": "low_latency"},
        {"kind": "low_latency", "nvlink": False},
        {"kind": "flat", "copies": "per_rank"},
        {"kind": "flat", "copies": "per_expert"},
        {"kind": "nccl", "pxn": True},
        {"kind": "nccl", "pxn": False},
    ]
)
GATES = st.sampled_from(
    [
        {"kind": "uniform", "sampling": "expected"},
        {"kind": "balanced", "sampling": "expected"},
        {"kind": "zipf", "exponent": 1.0, "sampling": "expected"},
        {"kind": "dirichlet", "alpha": 0.3, "sampling": "expected"},
        {"kind": "zipf", "exponent": 0.6},
        {"kind": "uniform"},
    ]
)
EXPECTED = GATES.filter(lambda gate: "sampling" in gate)
MODELS = {
    "deepseek-v3": 256,
    "mixtral-8x7b": 8,
    "gpt-oss-120b": 128,
    "qwen3-235b-a22b": 128,
    "deepseek-v2": 160,
}
"""Shipped models with their numbers of experts."""


def _collective(parts: Tree) -> Drawn:
    machine, fraction = parts["machine"], parts["ep"]
    ranks = machine["nodes"] * 8
    model = parts["model"]
    ep = next(
        ep for ep in sorted(range(1, ranks + 1), key=lambda ep: abs(ep - ranks * fraction))
        if ranks % ep == 0 and MODELS[model] % ep == 0 and (ep % 8 == 0 or 8 % ep == 0)
    )  # fmt: skip
    work = {
        "kind": "all_to_all", "tokens_per_rank": parts["tokens"], "gate": parts["gate"], "kernel": parts["kernel"],
        "dispatch_dtype": parts["dtype"],
    }  # fmt: skip
    if parts["plain"]:
        work = {"kind": "all_to_all", "bytes_per_rank": f"{parts['tokens']} kB", "kernel": parts["kernel"]}
    return Drawn(**machine, model=model, layout={"ep": ep}, workload=work, seed=parts["seed"])


def collectives(
    *,
    max_nodes: int = 4,
    gates: st.SearchStrategy[Tree] = GATES,
    routings: tuple[str, ...] = ("adaptive", "adaptive", "ecmp"),
    plain: bool = True,
) -> st.SearchStrategy[Drawn]:
    """Lone dispatches and combines, and plain all-to-alls with them."""
    return st.fixed_dictionaries(
        {
            "machine": machines(max_nodes, routings),
            "model": st.sampled_from(list(MODELS)),
            "ep": st.sampled_from([1.0, 1.0, 0.5, 0.25]),
            "tokens": st.sampled_from([1, 7, 64, 512]),
            "gate": gates,
            "kernel": KERNELS,
            "dtype": st.sampled_from(["fp8", "bf16"]),
            "plain": st.sampled_from([False, False, False, plain]),
            "seed": st.integers(0, 3),
        }
    ).map(_collective)


# --- flows ----------------------------------------------------------------------------------------------------------


def _flows(parts: Tree) -> Drawn:
    hosts, per_leaf, spines = parts["leaves"]
    rows = ["flow_id,src,dst,bytes,start_us,after_flow_id"]
    for i, (src, step, size, start, after) in enumerate(parts["flows"], 1):
        rows.append(
            f"{i},{src % hosts},{(src + 1 + step % (hosts - 1)) % hosts},{size},{start},{min(after, i - 1)}"
        )
    fabric = {
        "kind": "leaf_spine", "hosts": hosts, "hosts_per_leaf": per_leaf, "spines": spines, "link": "50 GB/s",
        "routing": parts["routing"], "link_latency": "500 ns", "switch_latency": "300 ns",
        "payload_per_packet": "4096 B", "wire_per_packet": parts["wire"],
    }  # fmt: skip
    return Drawn(fabric=fabric, workload={"kind": "flows", "file": "drawn.csv"}, file="\n".join(rows) + "\n")


FLOWS = st.fixed_dictionaries(
    {
        "leaves": st.sampled_from([(4, 4, 1), (8, 4, 4), (12, 4, 2), (9, 2, 1)]),
        "routing": st.sampled_from(["adaptive", "ecmp"]),
        "wire": st.sampled_from(["4096 B", "4160 B", "5000 B"]),
        "flows": st.lists(
            st.tuples(
                st.integers(0, 11), st.integers(0, 10), st.integers(1, 10**8), st.sampled_from([0, 0, 3, 400]),
                st.sampled_from([0, 0, 1, 5]),
            ),
            min_size=1, max_size=12,
        ),
    }
).map(_flows)  # fmt: skip
"""Bare flows between hosts, some of which wait for another."""


def slower_links(drawn: Drawn, factor: float) -> Drawn:
    """Bare hosts whose links carry less."""
    return replace(drawn, fabric=drawn.fabric | {"link": f"{50e9 / factor!r} B/s"})


# --- passes, steps and services --------------------------------------------------------------------------------------

_PASS_LAYOUTS = {
    "deepseek-v2": [(1, 8, 1), (2, 16, 1), (2, 16, 2)],
    "mixtral-8x7b": [(1, 8, 1), (1, 8, 2)],
    "gpt-oss-120b": [(1, 8, 1), (4, 32, 1)],
    "qwen3-235b-a22b": [(1, 8, 1), (2, 16, 4)],
}


def _pass(parts: Tree) -> Drawn:
    model, (nodes, ep, tp) = parts["model"]
    work = {
        "gate": parts["gate"],
        "overlap": parts["overlap"],
        "precision": parts["precision"],
        "drawn_layers": 1,
    }
    if parts["kind"] == "decode":
        work |= {
            "requests_per_gpu": parts["requests"],
            "context_tokens": parts["context"],
            "kernel": parts["kernel"],
        }
    else:
        work |= {
            "prompt_tokens": parts["context"], "prompts_per_gpu": 2 * parts["prompts"], "kernel": {"kind": "two_hop"},
        }  # fmt: skip
    return Drawn(
        hardware=parts["hardware"], nodes=nodes, machine=parts["machine"], model=model, layout={"ep": ep, "tp": tp},
        workload={"kind": parts["kind"], **work}, seed=parts["seed"],
    )  # fmt: skip


_MACHINE = st.dictionaries(
    st.sampled_from(
        [
            "gpu.scale_up.bandwidth",
            "nic.bandwidth",
            "gpu.hbm.bandwidth",
            "gpu.dense_flops.bf16",
            "gpu.dense_flops.fp8",
        ]
    ),
    st.sampled_from([0.1, 4.0]),
    max_size=2,
)

PASSES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["prefill", "decode"]),
        "model": st.sampled_from([(name, layout) for name, layouts in _PASS_LAYOUTS.items() for layout in layouts]),
        "hardware": st.sampled_from(["h800", "h20", "b200"]),
        "machine": _MACHINE,
        "gate": EXPECTED,
        "kernel": st.sampled_from([{"kind": "low_latency"}, {"kind": "low_latency", "nvlink": False}, {"kind": "two_hop"}]),
        "overlap": st.booleans(),
        "precision": st.sampled_from(["fp8", "bf16"]),
        "requests": st.sampled_from([2, 14, 64, 300]),
        "prompts": st.integers(1, 3),
        "context": st.sampled_from([16, 700, 4096]),
        "seed": st.integers(0, 3),
    }
).map(_pass)  # fmt: skip
"""Prefill and decode of one EP group."""

_STEP_LAYOUTS = [
    ("mixtral-8x7b", 2, {"pp": 2, "ep": 8}),
    ("mixtral-8x7b", 2, {"pp": 4, "ep": 4}),
    ("mixtral-8x7b", 2, {"pp": 2, "ep": 8, "tp": 2}),
    ("mixtral-8x7b", 2, {"pp": 2, "ep": 8, "cp": 2}),
    ("mixtral-8x7b", 4, {"pp": 2, "ep": 8}),
    ("qwen3-235b-a22b", 4, {"pp": 2, "ep": 16}),
]


def _step(parts: Tree) -> Drawn:
    model, nodes, layout = parts["layout"]
    schedule = parts["schedule"]
    work = {
        "kind": "training", "sequence_tokens": parts["tokens"], "microbatches": layout["pp"] * 2, "schedule": schedule,
        "precision": parts["precision"], "dispatch_dtype": parts["precision"], "overlap": parts["overlap"],
        "recompute": parts["recompute"], "kernel": parts["kernel"], "skew": parts["skew"],
    }  # fmt: skip
    return Drawn(
        hardware=parts["hardware"], nodes=nodes, fabric={"oversubscription": 1.0} | parts["fabric"],
        machine=parts["machine"], slow=parts["slow"], model=model, layout=layout, workload=work, seed=parts["seed"],
    )  # fmt: skip


BALANCED = {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": 0}
STEPS = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(_STEP_LAYOUTS),
        "hardware": st.sampled_from(["h800", "h200", "b200"]),
        "machine": _MACHINE,
        "fabric": st.sampled_from([{}, {"kind": "multi_plane"}, {"nodes_per_leaf": 1, "oversubscription": 4.0}]),
        "slow": st.dictionaries(st.tuples(st.integers(0, 1), st.integers(0, 7)), st.sampled_from([0.25, 0.9]), max_size=1),
        "tokens": st.sampled_from([512, 4096]),
        "schedule": st.sampled_from(["gpipe", "1f1b", "zb1p", "dualpipe", "dualpipev"]),
        "precision": st.sampled_from(["fp8", "bf16"]),
        "overlap": st.booleans(),
        "recompute": st.sampled_from(["none", "selective", "full"]),
        "kernel": st.sampled_from([{"kind": "two_hop"}, {"kind": "flat"}, {"kind": "nccl"}]),
        "skew": st.sampled_from([BALANCED, {}, {"groups": "all"}, {"groups": "all", "routed_load": 0}]),
        "seed": st.integers(0, 3),
    }
).map(_step)  # fmt: skip
"""Training steps of a few nodes."""


def _service(parts: Tree) -> Drawn:
    arrivals = {
        "kind": "poisson", "requests_per_s": parts["rate"], "requests": 12,
        "prompt": {"kind": "exponential", "mean": parts["prompt"]}, "output": {"kind": "exponential", "mean": 12},
    }  # fmt: skip
    gate = {"kind": "uniform", "sampling": "expected"}
    pool = {"instances": 1, "ep": 8}
    work = {
        "kind": "serving", "arrivals": arrivals, "slo": {"ttft": "2 s", "tpot": "50 ms"},
        "prefill": pool | {"batch_tokens": 4096, "plan": {"gate": gate, "kernel": {"kind": "two_hop"}}},
        "decode": pool | {"requests_per_gpu": 8, "plan": {"gate": gate, "kernel": {"kind": "low_latency"}}},
    }  # fmt: skip
    return Drawn(
        hardware=parts["hardware"], nodes=2, machine=parts["machine"], model="mixtral-8x7b", workload=work,
        seed=parts["seed"],
    )  # fmt: skip


SERVICES = st.fixed_dictionaries(
    {
        "hardware": st.sampled_from(["h800", "h20"]),
        "machine": _MACHINE,
        "rate": st.sampled_from([0.5, 20, 400]),
        "prompt": st.sampled_from([50, 2000]),
        "seed": st.integers(0, 3),
    }
).map(_service)
"""A prefill and a decode instance that serve a dozen requests."""
