"""Whole scenarios against theory: closed-form tables of copies and bytes, and laws that no constant can break.

A table's time is that of the mean rank under uniform traffic, T = 4096 tokens of DeepSeek-V3:

    t = alpha + max(T M (1 - 1/n) r / B_nic, T R (7/8) r / B_nvlink, T R r / (24 b_sm))

with M distinct nodes and R distinct ranks a token (20,000 tokens drawn apart from this code), records r of 7472 bytes for
dispatch and 14384 for combine, B_nic = 45 GB/s, B_nvlink = 135 GB/s on H800 and 303.75 on H100, and alpha = 25 us within
a node, 50 us beyond (DeepSeek-V3 technical report, arXiv 2412.19437; DeepEP's kernels and tables).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim import documents
from sim.runs.run import run_document, run_scenario
from sim.scenario.resolve import resolve
from sim.trees import flatten
from sim.workload.model import load_model

TOKENS = 4096
RECORD = {"dispatch": 7472.0, "combine": 14384.0}
NVLINK = {"h800": 135e9, "h100": 303.75e9}
SMS = {"dispatch": 24 * 12.4e9, "combine": 24 * 9.6e9}


WAYS = ("dispatch", "combine")


def run(**tree: Any) -> dict[str, Any]:
    found: dict[str, Any] = run_scenario(resolve(documents.Document({"name": "oracle", **tree}, "oracle")))
    return found


def all_to_all(
    hardware: str = "h800",
    nodes: int = 8,
    gate: dict[str, Any] | None = None,
    kernel: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A run of DeepSeek-V3's exchange; keywords of the workload and of the whole scenario may follow."""
    top = {key: more.pop(key) for key in ("model", "fidelity", "seed") if key in more}
    cluster = {
        "hardware": hardware,
        "nodes": nodes,
        "override": more.pop("override", {}),
        "faults": more.pop("faults", []),
    }
    workload = {
        "kind": "all_to_all",
        "tokens_per_rank": TOKENS,
        "gate": gate or {"kind": "group_limited", "sampling": "expected"},
        "kernel": kernel or {"kind": "two_hop", "comm_sms": 24},
        **more,
    }
    return run(**{"cluster": cluster, "model": "deepseek-v3", "workload": workload, **top})


# --- tables ---------------------------------------------------------------------------------------------------------

# groups kept: ranks a token; dispatch and combine [ms] over the NIC, over NVLink of H800 and of H100; no fixed time
GROUP_LIMIT = {
    1: (5.64, (0.60, 1.12, 0.50), (1.15, 2.15, 0.97)),
    2: (6.82, (1.19, 1.35, 0.61), (2.29, 2.60, 1.17)),
    3: (7.26, (1.78, 1.44, 0.65), (3.44, 2.77, 1.25)),
    4: (7.49, (2.36, 1.49, 0.67), (4.54, 2.86, 1.29)),
    5: (7.60, (2.81, 1.51, 0.68), (5.41, 2.90, 1.31)),
    6: (7.65, (3.04, 1.52, 0.68), (5.86, 2.92, 1.32)),
    8: (7.68, (3.15, 1.52, 0.69), (6.07, 2.93, 1.32)),
}


def ends(table: dict[int, Any], *fast: int) -> list[Any]:
    """The values of a sweep; all but the first, the last and those that decide are slow."""
    keys = list(table)
    kept = (keys[0], keys[-1], *fast)
    return [pytest.param(key, marks=() if key in kept else pytest.mark.slow) for key in keys]


@pytest.mark.parametrize("groups", ends(GROUP_LIMIT, 2, 4))
@pytest.mark.parametrize("hardware", ["h800", "h100"])
def test_the_group_limit_sweep(groups: int, hardware: str) -> None:
    ranks, *tables = GROUP_LIMIT[groups]
    metrics = all_to_all(
        hardware, gate={"kind": "group_limited", "top_groups": groups, "sampling": "expected"}
    )["metrics"]
    for way, (nic, h800, h100) in zip(("dispatch", "combine"), tables, strict=True):
        copied = TOKENS * ranks * RECORD[way] / SMS[way]
        bound = max(nic * 1e-3, (h800 if hardware == "h800" else h100) * 1e-3, copied)
        assert metrics[way]["completion_time_s"] == pytest.approx(50e-6 + bound, rel=0.02)


def test_below_three_groups_only_the_h100_gains_in_full() -> None:
    """H800 / H100 of the moving bytes: 1.87 with one group kept, 1.13 with two, 1 from three on."""
    for groups, ratio in ((1, 1.87), (2, 1.13), (3, 1.0), (4, 1.0)):
        gate = {"kind": "group_limited", "top_groups": groups, "sampling": "expected"}
        slow, fast = (
            all_to_all(gpu, gate=gate)["metrics"]["dispatch"]["completion_time_s"] for gpu in ("h800", "h100")
        )
        assert (slow - 50e-6) / (fast - 50e-6) == pytest.approx(ratio, rel=0.02)


# top-k at four groups kept: dispatch [ms] over the NIC, over NVLink of H800 and of H100, at 7472 bytes a record
TOP_K = {
    4: (1.89, 0.78, 0.35),
    6: (2.26, 1.14, 0.51),
    8: (2.36, 1.49, 0.67),
    10: (2.38, 1.81, 0.82),
    12: (2.38, 2.12, 0.95),
    13: (2.38, 2.26, 1.02),
    16: (2.38, 2.68, 1.21),
    20: (2.38, 3.18, 1.43),
    24: (2.38, 3.63, 1.64),
    32: (2.38, 4.39, 1.97),
}


def top_k_run(hardware: str, top_k: int) -> dict[str, Any]:
    shape = {**documents.load(documents.shipped("scenarios/models")["deepseek-v3"]).tree, "top_k": top_k}
    gate = {"kind": "group_limited", "top_groups": 4, "num_groups": 8, "sampling": "expected"}
    dispatch: dict[str, Any] = all_to_all(hardware, gate=gate, model=shape)["metrics"]["dispatch"]
    return dispatch


def record_bytes(top_k: int) -> int:
    """Payload 7168, scales 224, source 8, an id and a weight of 4 bytes for each expert; rounded up to 16."""
    return -(-(7168 + 224 + 8 + 8 * top_k) // 16) * 16


@pytest.mark.parametrize("top_k", ends(TOP_K, 13, 14))
@pytest.mark.parametrize("hardware", ["h800", "h100"])
def test_the_top_k_sweep(top_k: int, hardware: str) -> None:
    nic, h800, h100 = TOP_K[top_k]
    bound = max(nic, h800 if hardware == "h800" else h100) * 1e-3 * record_bytes(top_k) / 7472
    assert top_k_run(hardware, top_k)["completion_time_s"] == pytest.approx(50e-6 + bound, rel=0.02)


def test_thirteen_experts_cost_an_h800_as_much_as_eight_and_fourteen_more() -> None:
    """DeepSeek-V3 technical report, section 3.2.2: up to 13 experts at the same cost. An H100 never gets there."""
    assert [top_k_run("h800", k)["binding"] for k in (8, 12, 13, 14, 16)] == [
        "nic",
        "nic",
        "nic",
        "scale_up",
        "scale_up",
    ]
    assert {top_k_run("h100", k)["binding"] for k in (8, 13, 14, 20, 32)} == {"nic"}


# EP: dispatch and combine [us], fixed time included, with what binds; on H800 and on H100
EP_SWEEP = {
    8: {"h800": (812, "scale_up", 1539, "scale_up"), "h100": (379, "scale_up", 706, "scale_up")},
    16: {"h800": (1186, "scale_up", 2237, "scale_up"), "h100": (719, "nic", 1514, "copy_sms")},
    32: {"h800": (1645, "nic", 3121, "nic"), "h100": (1645, "nic", 3121, "nic")},
    64: {"h800": (2410, "nic", 4592, "nic"), "h100": (2410, "nic", 4592, "nic")},
    128: {"h800": (3701, "nic", 7078, "nic"), "h100": (3701, "nic", 7078, "nic")},
}
DRAWN = [pytest.param(ep, marks=pytest.mark.slow if ep == 128 else ()) for ep in EP_SWEEP]


@pytest.mark.parametrize("ep", ends(EP_SWEEP, 16))
@pytest.mark.parametrize("hardware", ["h800", "h100"])
def test_the_ep_sweep(ep: int, hardware: str) -> None:
    dispatch_us, dispatch_by, combine_us, combine_by = EP_SWEEP[ep][hardware]
    metrics = all_to_all(hardware, ep // 8)["metrics"]
    assert metrics["dispatch"]["completion_time_s"] == pytest.approx(dispatch_us * 1e-6, rel=0.02)
    assert metrics["combine"]["completion_time_s"] == pytest.approx(combine_us * 1e-6, rel=0.02)
    assert (metrics["dispatch"]["binding"], metrics["combine"]["binding"]) == (dispatch_by, combine_by)


@pytest.mark.parametrize("ep", DRAWN)
@pytest.mark.parametrize("hardware", ["h800", "h100"])
def test_drawn_tokens_end_up_to_three_percent_after_expected_ones(ep: int, hardware: str) -> None:
    expected = all_to_all(hardware, ep // 8)["metrics"]
    drawn = all_to_all(hardware, ep // 8, gate={"kind": "group_limited"})["metrics"]
    for way in ("dispatch", "combine"):
        excess = drawn[way]["completion_time_s"] / expected[way]["completion_time_s"] - 1
        assert 0 <= excess <= 0.03


# --- closed form and flow -------------------------------------------------------------------------------------------

KERNELS: list[dict[str, Any]] = [
    {"kind": "two_hop"},
    {"kind": "low_latency", "nvlink": True},
    {"kind": "low_latency", "nvlink": False},
    {"kind": "flat", "copies": "per_rank"},
    {"kind": "flat", "copies": "per_expert"},
    {"kind": "nccl", "pxn": True},
    {"kind": "nccl", "pxn": False},
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: "-".join(str(v).lower() for v in k.values()))
@pytest.mark.parametrize("nodes", [1, 2, 8])
@pytest.mark.parametrize("hardware", ["h800", "h100"])
def test_closed_form_and_flow_agree_on_uniform_traffic(
    kernel: dict[str, Any], nodes: int, hardware: str
) -> None:
    gate = {"kind": "uniform", "sampling": "expected"}
    flow, form = (
        all_to_all(hardware, nodes, gate=gate, kernel=kernel, fidelity=fidelity)["metrics"]
        for fidelity in ("flow", "closed_form")
    )
    for way in ("dispatch", "combine"):
        assert flow[way]["completion_time_s"] == pytest.approx(form[way]["completion_time_s"], rel=0.02)
        assert flow[way]["time_s"] == pytest.approx(form[way]["time_s"], rel=0.02)
        for key in ("wire_nic_bytes", "wire_nvlink_bytes", "lower_bound_s"):
            assert flow[way][key] == pytest.approx(form[way][key], rel=1e-9)


def test_uniform_copies_follow_the_hypergeometric_law() -> None:
    """E[distinct of G equal parts] = G (1 - C(E - E/G, k) / C(E, k)); 5.295 nodes and 7.676 ranks at EP64."""
    metrics = all_to_all(gate={"kind": "uniform", "sampling": "expected"})["metrics"]["dispatch"]
    assert metrics["nodes_per_token"] == pytest.approx(5.295, abs=0.001)
    assert metrics["ranks_per_token"] == pytest.approx(7.676, abs=0.001)
    assert metrics["wire_nic_bytes"] == pytest.approx(TOKENS * 5.295 * 7 / 8 * 7472, rel=1e-3)
    assert metrics["wire_nvlink_bytes"] == pytest.approx(TOKENS * 7.676 * 7 / 8 * 7472, rel=1e-3)


# --- laws -----------------------------------------------------------------------------------------------------------

LAW_KERNELS = [KERNELS[0], KERNELS[1], KERNELS[4], KERNELS[5]]
SKEW = {"kind": "zipf", "exponent": 0.5}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: "-".join(str(v).lower() for v in k.values()))
@pytest.mark.parametrize("nodes", [1, 2])
def test_an_h800_with_an_h100s_nvlink_gives_its_metrics_to_the_last_digit(
    kernel: dict[str, Any], nodes: int
) -> None:
    more: dict[str, Any] = {"gate": SKEW, "kernel": kernel, "tokens_per_rank": 128}
    override = {"gpu.scale_up.bandwidth": "450 GB/s"}
    assert (
        all_to_all("h800", nodes, override=override, **more)["metrics"]
        == all_to_all("h100", nodes, **more)["metrics"]
    )


def faster(factor: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Overrides of an H800 and of the two_hop kernel: every rate times `factor`, no fixed time."""
    hardware = {
        "gpu.scale_up.bandwidth": f"{200 * factor:.17g} GB/s",
        "nic.bandwidth": f"{400 * factor:.17g} Gb/s",
        "gpu.pcie.bandwidth": f"{64 * factor:.17g} GB/s",
        "gpu.hbm.bandwidth": f"{3350 * factor:.17g} GB/s",
        "fabric.same_leaf_latency": "0 us",
        "fabric.cross_leaf_latency": "0 us",
    }
    kernel = {
        f"latency.{reach}.{way}": "0 us"
        for reach in ("single_node", "over_nic")
        for way in ("dispatch", "combine")
    }
    rates = {"single_node": (19, 19), "over_nic": (12.4, 9.6)}
    for reach, pair in rates.items():
        for way, rate in zip(("dispatch", "combine"), pair, strict=True):
            kernel[f"copy_rate.{reach}.{way}"] = f"{rate * factor:.17g} GB/s"
    return hardware, {"kind": "two_hop", "override": kernel}


@pytest.mark.parametrize("nodes", [1, 4])
def test_twice_the_bandwidth_takes_half_the_time_without_fixed_times(nodes: int) -> None:
    times = []
    for factor in (1.0, 2.0):
        hardware, kernel = faster(factor)
        metrics = all_to_all(nodes=nodes, gate=SKEW, kernel=kernel, override=hardware, tokens_per_rank=256)[
            "metrics"
        ]
        times.append(
            [
                metrics[way][key]
                for way in ("dispatch", "combine")
                for key in ("time_s", "completion_time_s", "lower_bound_s")
            ]
        )
    assert times[0] == pytest.approx([2 * value for value in times[1]], rel=1e-9)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(senders=st.integers(1, 15), megabytes=st.integers(1, 64))
def test_k_senders_into_one_nic_take_k_times_as_long(tmp_path: Path, senders: int, megabytes: int) -> None:
    rows = [f"{i},{i},0,{megabytes * 10**6},0" for i in range(1, senders + 1)]
    (tmp_path / "incast.csv").write_text("\n".join(["flow_id,src,dst,bytes,start_us", *rows]))
    fabric = {"kind": "leaf_spine", "hosts": 16, "hosts_per_leaf": 4, "spines": 4, "link": "400 Gb/s"}
    found = run(cluster={"fabric": fabric}, workload={"kind": "flows", "file": str(tmp_path / "incast.csv")})
    idle_s = 3 * 4096 / 50e9  # one packet through at most three switches
    one_s = megabytes * 1e6 / 50e9
    assert 0 <= found["metrics"]["completion_time_s"] - senders * one_s <= idle_s + 1e-12
    assert found["metrics"]["lower_bound_s"] == pytest.approx(senders * one_s, rel=1e-12)


def bytes_of(found: dict[str, Any], ending: str) -> float:
    return float(sum(link["bytes"] for name, link in found["links"].items() if name.endswith(ending)))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: "-".join(str(v).lower() for v in k.values()))
@pytest.mark.parametrize("gate", [SKEW, {"kind": "group_limited"}], ids=lambda g: str(g["kind"]))
def test_bytes_that_go_in_come_out_and_no_link_is_overfull(
    kernel: dict[str, Any], gate: dict[str, Any]
) -> None:
    found = all_to_all(nodes=4, gate=gate, kernel=kernel, tokens_per_rank=128)
    metrics, ranks = found["metrics"], 32
    sent = sum(
        link["bytes"] for name, link in found["links"].items() if "/nic" in name and name.endswith("/tx")
    )
    received = sum(
        link["bytes"] for name, link in found["links"].items() if "/nic" in name and name.endswith("/rx")
    )
    assert sent == pytest.approx(received, rel=1e-12)
    assert sent == pytest.approx(ranks * sum(metrics[way]["wire_nic_bytes"] for way in WAYS), rel=1e-12)
    assert bytes_of(found, "scale_up/egress") == pytest.approx(bytes_of(found, "scale_up/ingress"), rel=1e-12)
    assert max(link["utilisation_fraction"] for link in found["links"].values()) <= 1 + 1e-9
    for way in WAYS:
        assert (
            metrics[way]["lower_bound_s"]
            <= metrics[way]["time_s"]
            <= metrics[way]["completion_time_s"] * (1 + 1e-12)
        )
    if kernel == KERNELS[3]:  # one copy a rank, each over one cable
        crossing = sum(
            np.sum(matrix) - np.trace(matrix) for matrix in map(np.array, found["traffic"].values())
        )
        assert sent + bytes_of(found, "scale_up/egress") == pytest.approx(crossing, rel=1e-12)


def relabelled(ids: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """The same tokens after rank r was renamed order[r]: each token with its rank, each expert with its rank."""
    place = np.array(order)
    per_rank = 256 // len(place)
    renamed = place[ids // per_rank] * per_rank + ids % per_rank
    by_rank = renamed.reshape(len(place), -1, ids.shape[1])
    out = np.empty_like(by_rank)
    out[place] = by_rank
    return out.reshape(ids.shape)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16), nodes=st.permutations(range(4)), rails=st.permutations(range(8)))
@pytest.mark.parametrize("kernel", LAW_KERNELS, ids=lambda k: str(k["kind"]))
def test_renaming_nodes_and_rails_changes_no_time(
    tmp_path: Path, kernel: dict[str, Any], seed: int, nodes: list[int], rails: list[int]
) -> None:
    tokens, rng = 16, np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(256, 0.5))
    ids = np.array([rng.choice(256, 8, replace=False, p=weights) for _ in range(32 * tokens)])
    order = [nodes[rank // 8] * 8 + rails[rank % 8] for rank in range(32)]
    times = []
    for name, table in (("plain", ids), ("renamed", relabelled(ids, order))):
        np.savetxt(tmp_path / f"{name}.csv", table, fmt="%d", delimiter=",")
        gate = {"kind": "trace", "file": str(tmp_path / f"{name}.csv")}
        metrics = all_to_all(nodes=4, gate=gate, kernel=kernel, tokens_per_rank=tokens)["metrics"]
        times.append(
            [
                metrics[way][key]
                for way in WAYS
                for key in ("time_s", "completion_time_s", "wire_nic_bytes", "lower_bound_s")
            ]
        )
    assert times[0] == pytest.approx(times[1], rel=1e-9)


def test_a_seed_gives_the_same_metrics_every_time() -> None:
    tree = {
        "name": "twice",
        "seed": 7,
        "cluster": {"hardware": "h800", "nodes": 2},
        "model": "deepseek-v3",
        "workload": {
            "kind": "all_to_all",
            "tokens_per_rank": 64,
            "gate": SKEW,
            "kernel": {"kind": "two_hop"},
        },
    }
    first, second, other = (
        flatten(run_document(documents.Document({**tree, "seed": seed}, "twice"))["metrics"])
        for seed in (7, 7, 8)
    )
    assert first == second
    assert first != other


def test_the_shipped_model_is_the_one_of_the_tables() -> None:
    model = load_model("deepseek-v3")
    assert (model.hidden, model.num_experts, model.top_k, model.num_groups) == (7168, 256, 8, 8)
    assert record_bytes(model.top_k) == 7472
