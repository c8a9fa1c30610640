"""All-to-all kernels: hand-counted records, means by theory, mirrors, faults, and sizes from 4 to 384 GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from faults import slow_nic
from sim.cluster.faults import Fault
from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import CLASSES, Cluster, Fabric, build
from sim.engine.executor import run_together
from sim.errors import InfeasibleError
from sim.schedule import bounds
from sim.schedule.collectives import KINDS, Collective
from sim.workload.gating import Gate
from sim.workload.placement import contiguous
from sim.workload.traffic import Routing, route

H800 = load_hardware("h800")
PAIRS = load_hardware("h800", {"gpu": {"scale_up": {"domain": 2}}})
RECORD = 1000.0
DIRECTIONS = ("dispatch", "combine")
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "two_hop": ("two_hop", {}),
    "low_latency": ("low_latency", {}),
    "low_latency over the NIC": ("low_latency", {"nvlink": False}),
    "flat per rank": ("flat", {"copies": "per_rank"}),
    "flat per expert": ("flat", {"copies": "per_expert"}),
    "nccl": ("nccl", {"pxn": False}),
    "nccl with PXN": ("nccl", {"pxn": True}),
}


def cluster_of(
    num_nodes: int, faults: tuple[Fault, ...] = (), hardware: Any = H800, kind: str = "rail_optimized"
) -> Cluster:
    return build(hardware, num_nodes, Fabric(kind=kind), faults)  # type: ignore[arg-type]


def exchange(
    cluster: Cluster,
    routing: Routing,
    kernel: str,
    direction: str = "dispatch",
    first: int = 0,
    **options: Any,
) -> Collective:
    name, more = OPTIONS[kernel]
    gpus = first + np.arange(routing.num_ranks)
    known = load_kernel(name)
    sms = known.comm_sms
    return Collective(cluster, known, direction, gpus, routing, RECORD, comm_sms=sms, **{**more, **options})


def skewed(
    num_ranks: int, seed: int = 0, tokens: int = 64, per_node: int = 8, sampling: str = "tokens"
) -> Routing:
    rng = np.random.default_rng(seed)
    likes = rng.dirichlet(np.full(256, 0.3))
    gate = Gate("dirichlet", alpha=0.3)
    return route(
        gate, contiguous(256, num_ranks), top_k=8, tokens_per_rank=tokens, ranks_per_node=per_node, rng=rng,
        probabilities=likes, sampling=sampling,
    )  # fmt: skip


def uniform(num_ranks: int, num_experts: int = 256, per_node: int = 8, tokens: int = 4096) -> Routing:
    return route(
        Gate("uniform"), contiguous(num_experts, num_ranks), top_k=8, tokens_per_rank=tokens, ranks_per_node=per_node,
        sampling="expected", rng=np.random.default_rng(0),
    )  # fmt: skip


def carried(x: Collective) -> dict[str, float]:
    """Records that cross each resource."""
    crossed = x.flows().bytes_by_resource(len(x.cluster.names)) / RECORD
    return {x.cluster.names[row]: float(crossed[row]) for row in np.flatnonzero(crossed)}


def of_class(found: dict[str, float], *endings: str) -> dict[str, float]:
    return {name: value for name, value in found.items() if name.endswith(endings)}


CABLES = ("/tx", "/rx", "/egress", "/ingress")


# --- three tokens, counted by hand ---------------------------------------------------------------------------------

# Two nodes of two GPUs. Rank 0 has three tokens of two experts each: on ranks {0, 2}, {2, 3} and {3, 3}.
THREE = Routing(
    tokens_per_rank=3,
    top_k=2,
    node_of_rank=np.array([0, 0, 1, 1]),
    tokens_to_node=np.array([[1.0, 3.0], [0, 0], [0, 0], [0, 0]]),
    tokens_to_rank=np.array([[1.0, 0, 2, 2], [0] * 4, [0] * 4, [0] * 4]),
    selections_to_rank=np.array([[1.0, 0, 2, 3], [0] * 4, [0] * 4, [0] * 4]),
    selections_to_physical=np.array([1.0, 0, 2, 3]),
)


def tiny(kernel: str, direction: str = "dispatch") -> Collective:
    return exchange(cluster_of(2, hardware=PAIRS), THREE, kernel, direction)


def both_ways(forth: dict[str, float], direction: str) -> dict[str, float]:
    """The mirror image for combine: every cable the other way."""
    turned = {"/tx": "/rx", "/rx": "/tx", "/egress": "/ingress", "/ingress": "/egress"}
    if direction == "dispatch":
        return forth
    return {name.rpartition("/")[0] + turned["/" + name.rpartition("/")[2]]: n for name, n in forth.items()}


def with_pcie(nics: dict[str, float]) -> dict[str, float]:
    return nics | {
        name.replace("nic", "gpu").replace("/tx", "/pcie/tx").replace("/rx", "/pcie/rx"): n
        for name, n in nics.items()
    }


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_two_hop_of_three_tokens(direction: str) -> None:
    """All three go once to node 1, by GPU 0 there; two of them on to GPU 1. The token kept at home crosses nothing."""
    expected = with_pcie({"node0/nic0/tx": 3, "node1/nic0/rx": 3})
    expected |= {"node1/gpu0/scale_up/egress": 2, "node1/gpu1/scale_up/ingress": 2}
    assert of_class(carried(tiny("two_hop", direction)), *CABLES) == pytest.approx(
        both_ways(expected, direction)
    )


def test_two_hop_weights_are_what_the_kernel_achieves_and_the_forwarder_copies() -> None:
    x = tiny("two_hop")
    flows, row = x.flows(), x.cluster.row
    line = flows.line_by_resource(len(x.cluster.names)) / RECORD
    assert flows.payload_bytes.tolist() == [1 * RECORD, 3 * RECORD]
    assert flows.share.tolist() == [1, 3]
    assert line[row("node0/nic0/tx")] == pytest.approx(3 / 0.90)
    assert line[row("node1/gpu0/scale_up/egress")] == pytest.approx(2 / 0.675)
    assert line[row("node1/gpu0/copy_sms")] == pytest.approx((2 + 2) / (24 * 12.4e9))
    assert line[row("node0/gpu0/copy_sms")] == pytest.approx(1 / (24 * 12.4e9))
    assert set(zip(flows.party_flow.tolist(), flows.party_rank.tolist(), strict=True)) == {
        (0, 0),
        (1, 0),
        (1, 2),
        (1, 3),
    }


def test_memory_is_touched_where_records_arrive() -> None:
    """Dispatch: by every rank that gets a token. Combine: by GPU 0 of node 1, which sums what its neighbour sent, alone."""
    touches = load_kernel("two_hop").hbm_touches
    dispatch, combine = (of_class(carried(tiny("two_hop", direction)), "/hbm") for direction in DIRECTIONS)
    arrived = {"node0/gpu0/hbm": 1, "node1/gpu0/hbm": 2, "node1/gpu1/hbm": 2}
    assert dispatch == pytest.approx({name: touches.dispatch * n for name, n in arrived.items()})
    assert combine == pytest.approx({"node1/gpu0/hbm": touches.combine * 2})


def test_two_sms_share_a_queue_pair_and_switches_see_headers() -> None:
    """24 SMs are 12 channels, each a queue pair that ECMP hashes to one uplink; packets of 4,096 bytes have 64 of headers."""
    cluster = build(H800, 8, Fabric(kind="rail_optimized", routing="ecmp", nodes_per_leaf=4))
    flows = replace(exchange(cluster, uniform(64), "flat per rank"), comm_sms=24).flows()
    crosses = cluster.class_idx[flows.resource] == CLASSES.index("leaf_uplink")
    per_flow = np.bincount(flows.flow_of_entry[crosses], minlength=flows.num_flows)
    assert set(per_flow.tolist()) == {0, 2 * 12}  # up and down
    assert flows.wire[crosses] == pytest.approx(1 / 12)
    assert flows.line[crosses] / flows.wire[crosses] == pytest.approx(4160 / 4096)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("kernel", "to_2", "to_3"),
    [("low_latency", 2, 3), ("flat per expert", 2, 3), ("flat per rank", 2, 2), ("nccl", 2, 2)],
)
def test_direct_kernels_of_three_tokens(kernel: str, to_2: int, to_3: int, direction: str) -> None:
    expected = with_pcie({"node0/nic0/tx": to_2 + to_3, "node1/nic0/rx": to_2, "node1/nic1/rx": to_3})
    assert of_class(carried(tiny(kernel, direction)), *CABLES) == pytest.approx(
        both_ways(expected, direction)
    )


def test_pxn_crosses_scale_up_to_the_rail_of_the_receiver() -> None:
    expected = with_pcie({"node0/nic0/tx": 2, "node0/nic1/tx": 2, "node1/nic0/rx": 2, "node1/nic1/rx": 2})
    expected |= {"node0/gpu0/scale_up/egress": 2, "node0/gpu1/scale_up/ingress": 2}
    found = carried(tiny("nccl with PXN"))
    assert of_class(found, *CABLES) == pytest.approx(expected)
    assert not of_class(found, "/up", "/down")  # rails match: no spine


def test_low_latency_without_nvlink_sends_same_node_copies_over_the_nic() -> None:
    near = Routing(1, 1, np.array([0, 0]), np.ones((2, 1)), np.eye(2)[::-1], np.eye(2)[::-1], np.ones(2))
    cluster = cluster_of(1, hardware=PAIRS)
    nvlink, nic = (carried(exchange(cluster, near, k)) for k in ("low_latency", "low_latency over the NIC"))
    assert of_class(nvlink, *CABLES) == dict.fromkeys(
        [
            "node0/gpu0/scale_up/egress",
            "node0/gpu1/scale_up/ingress",
            "node0/gpu1/scale_up/egress",
            "node0/gpu0/scale_up/ingress",
        ],
        1,
    )
    assert not of_class(nic, "/egress", "/ingress")
    assert of_class(nic, "nic0/tx", "nic0/rx", "nic1/tx", "nic1/rx") == dict.fromkeys(
        ["node0/nic0/tx", "node0/nic1/rx", "node0/nic1/tx", "node0/nic0/rx"], 1
    )


# --- means by theory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("num_nodes", [1, 2, 4, 8])
def test_two_hop_means_over_uniform_ranks(num_nodes: int, direction: str) -> None:
    """RDMA = T M (1 - 1/n) records a GPU, NVLink = T R 7/8, copied = T R (DeepEP csrc/kernels/legacy)."""
    routing = uniform(8 * num_nodes)
    x = exchange(cluster_of(num_nodes), routing, "two_hop", direction)
    flows, c = x.flows(), x.cluster
    wire = flows.bytes_by_resource(len(c.names)) / RECORD / routing.tokens_per_rank
    rdma = routing.nodes_per_token * (1 - 1 / num_nodes)
    for rows, expected in (
        (c.nic_tx, rdma), (c.nic_rx, rdma), (c.pcie_tx, rdma), (c.pcie_rx, rdma),
        (c.egress, routing.ranks_per_token * 7 / 8), (c.ingress, routing.ranks_per_token * 7 / 8),
    ):  # fmt: skip
        assert wire[rows].mean() == pytest.approx(expected, rel=1e-9)
    line = flows.line_by_resource(len(c.names)) / RECORD / routing.tokens_per_rank
    assert x.kernel.copy_rate_bytes_per_s is not None
    rate = x.kernel.copy_rate_bytes_per_s.numbers(uses_nic=num_nodes > 1)[direction]
    assert line[c.copy_sms].mean() * x.comm_sms * rate == pytest.approx(routing.ranks_per_token, rel=1e-9)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("num_ranks", [8, 16, 64])
def test_low_latency_means_over_uniform_ranks(num_ranks: int, direction: str) -> None:
    """RDMA = T k (1 - 8/P), NVLink = T k 7/P; without NVLink RDMA = T k (1 - 1/P)."""
    for kernel, rdma, nvlink in (
        ("low_latency", 1 - 8 / num_ranks, 7 / num_ranks),
        ("low_latency over the NIC", 1 - 1 / num_ranks, 0.0),
    ):
        x = exchange(cluster_of(num_ranks // 8), uniform(num_ranks, tokens=128), kernel, direction)
        wire = x.flows().bytes_by_resource(len(x.cluster.names)) / RECORD / 128 / 8
        for rows, expected in (
            (x.cluster.nic_tx, rdma),
            (x.cluster.nic_rx, rdma),
            (x.cluster.egress, nvlink),
            (x.cluster.ingress, nvlink),
        ):
            assert wire[rows].mean() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kernel", OPTIONS)
@pytest.mark.parametrize("num_ranks", [8, 32])
def test_flow_level_meets_the_closed_form_under_uniform_traffic(
    kernel: str, num_ranks: int, direction: str
) -> None:
    """Within 2 %: the two are written apart, and share the kernel's figures only."""
    x = exchange(cluster_of(max(1, num_ranks // 8)), uniform(num_ranks), kernel, direction)
    ends = run_together(x.cluster, "x", [x]).transfers[0].rank_ends_s
    assert ends.mean() == pytest.approx(bounds.closed_form_s(x)[0], rel=0.02)


# --- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kernel", OPTIONS)
@pytest.mark.parametrize("kind", ["rail_optimized", "multi_plane"])
def test_what_goes_in_comes_out(kernel: str, kind: str, direction: str) -> None:
    x = exchange(cluster_of(4, kind=kind), skewed(32), kernel, direction)
    wire = x.flows().bytes_by_resource(len(x.cluster.names))
    c = x.cluster
    for out, into in (
        (c.nic_tx, c.nic_rx),
        (c.egress, c.ingress),
        (c.pcie_tx, c.pcie_rx),
        (c.nic_tx, c.pcie_tx),
    ):
        assert wire[out].sum() == pytest.approx(wire[into].sum(), rel=1e-12)


@pytest.mark.parametrize("kernel", sorted(set(OPTIONS) - {"nccl with PXN"}))
def test_combine_is_the_mirror_of_dispatch(kernel: str) -> None:
    """But with PXN, where the sender forwards in both directions."""
    forth, back = (carried(exchange(cluster_of(4), skewed(32), kernel, one)) for one in DIRECTIONS)
    assert of_class(back, *CABLES) == pytest.approx(both_ways(of_class(forth, *CABLES), "combine"), rel=1e-9)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kernel", OPTIONS)
def test_no_exchange_ends_before_its_bound(kernel: str, direction: str) -> None:
    x = exchange(cluster_of(4), skewed(32), kernel, direction)
    ends = run_together(x.cluster, "x", [x]).transfers[0].rank_ends_s
    assert ends.max() >= bounds.lower_bound_s([x.flows()], x.cluster)
    assert ends.max() >= x.latency_s()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kernel", OPTIONS)
@pytest.mark.parametrize("kind", ["rail_optimized", "multi_plane"])
def test_relabelling_nodes_and_rails_relabels_the_ends(kernel: str, kind: str, direction: str) -> None:
    rng = np.random.default_rng(7)
    nodes, rails = rng.permutation(4), rng.permutation(8)
    old = (nodes[:, None] * 8 + rails).ravel()  # the rank that is now called 0, 1, 2, ...
    first = skewed(32)
    second = Routing(
        first.tokens_per_rank, first.top_k, first.node_of_rank, first.tokens_to_node[old][:, nodes],
        first.tokens_to_rank[old][:, old], first.selections_to_rank[old][:, old], first.selections_to_physical,
    )  # fmt: skip
    one, two = (
        run_together(x.cluster, "x", [x]).transfers[0].rank_ends_s
        for x in (exchange(cluster_of(4, kind=kind), r, kernel, direction) for r in (first, second))
    )
    np.testing.assert_allclose(two, one[old], rtol=1e-9)


@pytest.mark.parametrize("kernel", ["two_hop", "low_latency", "nccl with PXN"])
def test_groups_on_their_own_nodes_do_not_feel_each_other(kernel: str) -> None:
    """Two EP groups of two nodes on one leaf a rail: each as fast as alone."""
    cluster, routing = cluster_of(4), skewed(16)
    both = [exchange(cluster, routing, kernel, first=first) for first in (0, 16)]
    together = run_together(cluster, "x", both).transfers
    alone = run_together(cluster, "x", both[:1]).transfers[0]
    for one in together:
        np.testing.assert_allclose(one.rank_ends_s, alone.rank_ends_s, rtol=1e-9)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kernel", OPTIONS)
def test_groups_smaller_than_a_node_stay_inside_it(kernel: str, direction: str) -> None:
    """EP4, twice in a node; low latency without NVLink uses NICs all the same."""
    cluster = cluster_of(1)
    groups = [exchange(cluster, skewed(4, per_node=8), kernel, direction, first=first) for first in (0, 4)]
    trace = run_together(cluster, "x", groups)
    wire = np.sum([one.flows.bytes_by_resource(len(cluster.names)) for one in trace.transfers], axis=0)
    over_nic = kernel == "low_latency over the NIC"
    assert (wire[cluster.nic_tx].sum() > 0) == over_nic
    assert (wire[cluster.egress].sum() > 0) != over_nic
    assert trace.transfers[0].rank_ends_s == pytest.approx(trace.transfers[1].rank_ends_s)


# --- faults --------------------------------------------------------------------------------------------------------

DEAD_NIC = (slow_nic(3, 0.0, node=1),)
DEAD_RAIL = (slow_nic(3, 0.0),)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kernel", OPTIONS)
@pytest.mark.parametrize("kind", ["rail_optimized", "multi_plane"])
@pytest.mark.parametrize("faults", [DEAD_NIC, DEAD_RAIL], ids=["dead NIC", "dead rail"])
def test_dead_nics_carry_nothing_and_no_byte_is_lost(
    faults: tuple[Fault, ...], kind: str, kernel: str, direction: str
) -> None:
    healthy = exchange(cluster_of(4, kind=kind), skewed(32), kernel, direction)
    broken = exchange(cluster_of(4, faults, kind=kind), skewed(32), kernel, direction)
    c = broken.cluster
    whole, found = (x.flows().bytes_by_resource(len(c.names)) for x in (healthy, broken))
    assert broken.flows().payload_bytes.sum() == healthy.flows().payload_bytes.sum()
    for rows in (c.nic_tx, c.nic_rx):
        assert np.all(found[rows][~c.nic_alive] == 0)
        assert found[rows].sum() == pytest.approx(whole[rows].sum())
    assert found[c.egress].sum() == pytest.approx(found[c.ingress].sum())
    assert found[c.egress].sum() >= whole[c.egress].sum() * (1 - 1e-9)  # detours cross scale-up once more
    ends = run_together(c, "x", [broken]).transfers[0].rank_ends_s
    assert np.isfinite(ends).all()


def test_a_dead_rail_doubles_the_time_where_the_nic_binds() -> None:
    """Uniform traffic: the next rail carries the bytes of two."""
    times = []
    for faults in ((), DEAD_RAIL):
        x = exchange(cluster_of(8, faults), uniform(64), "two_hop")
        times.append(run_together(x.cluster, "x", [x]).transfers[0].rank_ends_s.max() - x.latency_s())
    assert times[1] / times[0] == pytest.approx(2, rel=0.01)


def test_a_nic_at_half_rate_takes_the_exchange_twice_as_long() -> None:
    times = []
    for faults in ((), (slow_nic(2, 25e9, node=1),)):
        x = exchange(cluster_of(8, faults), uniform(64), "two_hop")
        times.append(run_together(x.cluster, "x", [x]).transfers[0].rank_ends_s.max() - x.latency_s())
    assert times[1] / times[0] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("kernel", OPTIONS)
def test_without_a_living_nic_nothing_can_run(kernel: str) -> None:
    dead = tuple(slow_nic(rail, 0.0) for rail in range(8))
    with pytest.raises(InfeasibleError, match="no living rail joins node"):
        exchange(cluster_of(2, dead), skewed(16), kernel).flows()


def test_a_node_without_nics_goes_on_by_scale_up() -> None:
    dead = tuple(slow_nic(rail, 0.0) for rail in range(8))
    x = exchange(cluster_of(1, dead), skewed(8), "two_hop")
    assert np.isfinite(run_together(x.cluster, "x", [x]).transfers[0].rank_ends_s).all()


# --- supernodes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "num_experts"),
    [("gb200-nvl72", 288), pytest.param("cloudmatrix384", 384, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("kernel", ["two_hop", "low_latency", "flat per rank", "nccl with PXN"])
def test_one_scale_up_domain_holds_all_traffic(name: str, num_experts: int, kernel: str) -> None:
    hardware = load_hardware(name)
    num = hardware.gpu.scale_up.domain
    cluster = cluster_of(1, hardware=hardware)
    routing = uniform(num, num_experts=num_experts, per_node=num, tokens=64)
    x = exchange(cluster, routing, kernel)
    wire = x.flows().bytes_by_resource(len(cluster.names))
    copies = 8.0 if kernel == "low_latency" else routing.ranks_per_token
    assert not wire[cluster.nic_tx].any()
    assert wire[cluster.egress].mean() == pytest.approx(64 * copies * (1 - 1 / num) * RECORD, rel=1e-9)
    ends = run_together(cluster, "x", [x]).transfers[0].rank_ends_s
    assert ends.mean() == pytest.approx(bounds.closed_form_s(x)[0], rel=0.02)
    assert all(CLASSES[cluster.class_idx[row]] != "leaf_uplink" for row in np.flatnonzero(wire))


def test_every_kernel_is_tested_here() -> None:
    assert {name for name, _ in OPTIONS.values()} == set(KINDS)
