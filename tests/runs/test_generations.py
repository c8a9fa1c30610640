"""A generation of kernels of one's own: one YAML file and no Python, in every kind of workload, by theory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from command import Moesim
from sim import documents
from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Fabric, build
from sim.engine.executor import run_together
from sim.errors import InputError
from sim.runs.run import run_document
from sim.scenario.inference import Inference
from sim.scenario.resolve import resolve
from sim.scenario.serving import Serving
from sim.schedule import bounds
from sim.schedule.collectives import Collective, record_bytes
from sim.workload.gates import Gate
from sim.workload.placement import contiguous
from sim.workload.traffic import Routing, route

DIRECTIONS = ("dispatch", "combine")
H800 = load_hardware("h800")
NVLINK, NIC = 200e9, 50e9
FIXED_S = {"dispatch": 11e-6, "combine": 17e-6}  # over the NIC

HYBRID = """
name: hybrid
kind: {kind}
title: Two hops through one pipeline, few SMs
nic_efficiency_fraction: {{value: {nic}, grade: assumed, why: a test}}
scale_up_efficiency_fraction:
  dispatch: {{value: {up_dispatch}, grade: assumed, why: a test}}
  combine: {{value: {up_combine}, grade: assumed, why: a test}}
comm_sms: {{value: 8, grade: assumed, why: a test}}
copy_rate:
  single_node:
    dispatch: &copies {{value: {copy} GB/s, per: sm, grade: assumed, why: a test}}
    combine: *copies
  over_nic: {{dispatch: *copies, combine: *copies}}
latency:
  single_node:
    dispatch: {{value: 5 us, grade: assumed, why: a test}}
    combine: {{value: 7 us, grade: assumed, why: a test}}
  over_nic:
    dispatch: {{value: {fixed_dispatch} us, grade: assumed, why: a test}}
    combine: {{value: {fixed_combine} us, grade: assumed, why: a test}}
beside_compute_slowdown:
  dispatch: {{value: 1.25, grade: assumed, why: a test}}
  combine: {{value: 1.05, grade: assumed, why: a test}}
hbm_touches:
  dispatch: {{value: 1, grade: assumed, why: a test}}
  combine: {{value: 2, grade: assumed, why: a test}}
sources: {{}}
"""
NUMBERS: dict[str, Any] = {
    "kind": "two_hop", "nic": 0.94, "up_dispatch": 0.8, "up_combine": 0.4, "copy": 60, "fixed_dispatch": 11, "fixed_combine": 17,
}  # fmt: skip
LATER = {"fixed_dispatch": 22, "fixed_combine": 34}
SLOWER = {"nic": 0.47, "up_dispatch": 0.4, "up_combine": 0.2, "copy": 30}

GATE = {"kind": "uniform", "sampling": "expected"}
TOKENS = {"kind": "all_to_all", "tokens_per_rank": 4096, "gate": GATE}
ROOMY = {"hardware": "h800", "nodes": 2, "override": {"gpu.hbm.capacity": "1 TB"}}
TRAINING = {"kind": "training", "microbatches": 8, "schedule": "dualpipe", "recompute": "full"}
PREFILL = {"kind": "prefill", "prompt_tokens": 2048, "prompts_per_gpu": 4, "gate": GATE}
DECODE = {"kind": "decode", "requests_per_gpu": 32, "context_tokens": 2048, "gate": GATE, "overlap": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of scenarios next to three generations."""
    for name, changes in (
        ("hybrid", {}),
        ("later", LATER),
        ("slower", SLOWER),
        ("direct", {"kind": "low_latency"}),
    ):
        (tmp_path / f"{name}.yaml").write_text(HYBRID.format(**(NUMBERS | changes)))
    return tmp_path


def run(
    folder: Path, workload: dict[str, Any], generation: str | None = "hybrid.yaml", **top: Any
) -> dict[str, Any]:
    """The result of a scenario of the folder that names a generation next to it."""
    kernel = {"kind": "two_hop", "generation": generation} if generation else {"kind": "two_hop"}
    tree = {
        "name": "mine",
        "cluster": {"hardware": "h800", "nodes": 2},
        "model": "deepseek-v2",
        "workload": {"kernel": kernel, **workload},
        **top,
    }
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(tree))
    return run_document(documents.load(path))


def alone_s(result: dict[str, Any], direction: str) -> float:
    return float(result["exchanges"][direction]["alone_s"])


# --- all_to_all ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fidelity", ["flow", "closed_form"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_fixed_time_and_rates_of_a_file_act(folder: Path, fidelity: str, direction: str) -> None:
    """Twice the fixed time adds it once more; half of every rate doubles all the rest, but for the switches' latency."""
    base, later, slower = (
        run(folder, TOKENS, f"{name}.yaml", fidelity=fidelity)["metrics"][direction]["time_s"]
        for name in ("hybrid", "later", "slower")
    )
    assert later - base == pytest.approx(FIXED_S[direction], rel=1e-6)
    switches_s = 0.0 if fidelity == "closed_form" else H800.fabric.cross_leaf_latency_s
    rest = base - FIXED_S[direction]
    assert slower - FIXED_S[direction] == pytest.approx(2 * rest, abs=switches_s + 1e-3 * rest)


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_flow_level_meets_the_closed_form(folder: Path, nodes: int) -> None:
    """Within 2 %, as the shipped generations do."""
    cluster = {"hardware": "h800", "nodes": nodes}
    flow, closed = (
        run(folder, TOKENS, fidelity=fidelity, cluster=cluster)["metrics"]
        for fidelity in ("flow", "closed_form")
    )
    for direction in DIRECTIONS:
        assert flow[direction]["time_s"] == pytest.approx(closed[direction]["time_s"], rel=0.02)


def test_asymmetric_numbers_bind_one_direction(folder: Path) -> None:
    """One node: a rank's copies to the 7 others over NVLink at 80 % and 40 % of 200 GB/s, and the fixed time."""
    metrics = run(folder, TOKENS, fidelity="closed_form", cluster={"hardware": "h800", "nodes": 1})["metrics"]
    for direction, fraction, fixed_s in (("dispatch", 0.8, 5e-6), ("combine", 0.4, 7e-6)):
        one = metrics[direction]
        assert one["time_s"] == pytest.approx(
            fixed_s + one["wire_nvlink_bytes"] / (fraction * NVLINK), rel=1e-9
        )


def added(folder: Path, name: str, text: str) -> str:
    """A generation next to the others: `hybrid` with some keys more, or others."""
    tree = yaml.safe_load((folder / "hybrid.yaml").read_text()) | yaml.safe_load(text)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    return f"{name}.yaml"


COSTS = """
record_time: {dispatch: {value: 400 ns, grade: assumed, why: a test}, combine: {value: 0 s, grade: assumed, why: a test}}
take_in_rate:
  dispatch: {value: 40 GB/s, per: sm, grade: assumed, why: a test}
  combine: {value: 20 GB/s, per: sm, grade: assumed, why: a test}
"""


@pytest.mark.parametrize(("dtype", "payload"), [("fp8", 5120 + 160), ("bf16", 10240)])
def test_a_record_costs_its_bytes_its_copies_and_a_time(folder: Path, dtype: str, payload: int) -> None:
    """DeepSeek-V2: 6 experts, whose ids and weights ride along. One SM: 400 ns a record, taken in at 40 GB/s, copied at 60."""
    mine, size = added(folder, "records", COSTS), -(-(payload + 8 + 8 * 6) // 16) * 16
    kernel = {"kind": "two_hop", "generation": mine, "comm_sms": 1}
    work = TOKENS | {"dispatch_dtype": dtype, "kernel": kernel}
    metrics = run(folder, work, fidelity="closed_form")["metrics"]["dispatch"]
    record_s = metrics["nodes_per_token"] * (400e-9 + size / 40e9)
    copies_s = metrics["ranks_per_token"] * size / 60e9
    assert metrics["binding"] == "copy_sms"
    assert metrics["time_s"] == pytest.approx(FIXED_S["dispatch"] + 4096 * (record_s + copies_s), rel=1e-6)
    assert run(folder, work)["metrics"]["dispatch"]["time_s"] == pytest.approx(metrics["time_s"], rel=0.02)


def test_first_chunks_fill_the_pipeline_once(folder: Path) -> None:
    """3 tokens of each of 8 SMs are copied before the rest follows; with fewer tokens, those that there are."""
    some, none = ({"value": number, "grade": "assumed", "why": "a test"} for number in (3, 0))
    chunks = {
        "single_node": {"dispatch": none, "combine": none},
        "over_nic": {"dispatch": some, "combine": none},
    }
    mine = added(folder, "filling", yaml.safe_dump({"first_chunk_tokens": chunks}))
    for tokens, filling in ((4096, 24), (24, 24), (8, 8)):
        work = TOKENS | {"tokens_per_rank": tokens}
        base, later = (
            run(folder, work, name, fidelity="closed_form")["metrics"] for name in ("hybrid.yaml", mine)
        )
        one_s = base["dispatch"]["ranks_per_token"] * 5344 / (8 * 60e9)
        difference_s = later["dispatch"]["time_s"] - base["dispatch"]["time_s"]
        assert difference_s == pytest.approx(filling * one_s, rel=1e-6)
        assert later["combine"]["time_s"] == base["combine"]["time_s"]


def test_warps_that_hold_no_sm_copy_at_most_at_their_limit(folder: Path) -> None:
    """6 copies of a token, 7 of 8 to other ranks of the node, 10,240 bytes each, at 20 GB/s; the link would take 80."""
    changed = {
        "kind": "low_latency",
        "comm_sms": {"value": 0, "grade": "assumed", "why": "a test"},
        "copy_limit": {"combine": {"value": "20 GB/s", "grade": "assumed", "why": "a test"}},
    }
    mine = added(folder, "warps", yaml.safe_dump(changed))
    work = TOKENS | {"kernel": {"kind": "low_latency", "generation": mine}}
    metrics = run(folder, work, fidelity="closed_form", cluster={"hardware": "h800", "nodes": 1})["metrics"]
    copied = 4096 * 6 * 7 / 8 * 10240
    assert metrics["combine"]["time_s"] == pytest.approx(7e-6 + copied / 20e9, rel=1e-6)
    assert metrics["combine"]["binding"] == "copy_sms"
    assert metrics["dispatch"]["binding"] == "scale_up"


def test_chunks_make_bandwidth_rise_with_the_root_of_size(folder: Path) -> None:
    """n chunks of a transfer T through s stages take (n + s)(a + T / n); the best n leaves T + s a + 2 sqrt(s a T)."""
    chunk = {"value": "9 us", "grade": "assumed", "why": "a test"}
    both = {"dispatch": chunk, "combine": chunk}
    mine = added(folder, "chunks", yaml.safe_dump({"chunk_time": {"single_node": both, "over_nic": both}}))
    for tokens in (64, 1024, 16384):
        work = TOKENS | {"tokens_per_rank": tokens}
        base, later = (
            run(folder, work, name, fidelity="closed_form")["metrics"]["dispatch"]["time_s"]
            for name in ("hybrid.yaml", mine)
        )
        moving_s = base - FIXED_S["dispatch"]
        assert later - base == pytest.approx(2 * (9e-6 * moving_s) ** 0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("generation", "sms", "ep"),
    [("deepep_v2", 6, 32), ("deepep_v2", 12, 16), ("hybrid_ep", 8, 32), ("deepep_v1_2025_09", 16, 32)],
)
def test_the_published_sms_saturate_the_nic_and_a_third_of_them_do_not(
    folder: Path, generation: str, sms: int, ep: int
) -> None:
    def rate(number: int) -> float:
        kernel = {"kind": "two_hop", "generation": generation, "comm_sms": number}
        top = {"model": "deepseek-v3", "cluster": {"hardware": "h100", "nodes": ep // 8}}
        found = run(folder, TOKENS | {"kernel": kernel}, fidelity="closed_form", **top)["metrics"]
        return float(found["dispatch"]["logical_rdma_bytes_per_s"])

    assert rate(sms) > 0.97 * rate(4 * sms)
    assert rate(sms // 3) < 0.8 * rate(4 * sms)


def test_skewed_tokens_take_longer_than_uniform_ones(folder: Path) -> None:
    zipf = TOKENS | {"gate": {"kind": "zipf", "exponent": 0.8}}
    for direction in DIRECTIONS:
        even, skewed = (run(folder, work)["metrics"][direction] for work in (TOKENS, zipf))
        assert skewed["completion_time_s"] > 1.2 * even["completion_time_s"]
        assert skewed["completion_time_s"] >= skewed["lower_bound_s"]


def skewed(num_ranks: int) -> Routing:
    rng = np.random.default_rng(1)
    likes = rng.dirichlet(np.full(64, 0.3))
    return route(
        Gate("dirichlet", alpha=0.3), contiguous(64, num_ranks), top_k=4, tokens_per_rank=256, ranks_per_node=8, rng=rng,
        probabilities=likes,
    )  # fmt: skip


def collective(kernel: Any, direction: str, sms: int = 8) -> Collective:
    cluster = build(H800, 2, Fabric())
    return Collective(cluster, kernel, direction, np.arange(16), skewed(16), 4096.0, comm_sms=sms)


def test_combine_loads_the_side_that_its_kind_says(folder: Path) -> None:
    """A mirrored combine leaves by the links that dispatch came in by: where experts are popular, by their egress."""
    kernel = load_kernel(folder / "hybrid.yaml")
    forth, back = (collective(kernel, direction) for direction in DIRECTIONS)
    cluster, num = forth.cluster, len(forth.cluster.names)
    came, left = forth.flows().bytes_by_resource(num), back.flows().bytes_by_resource(num)
    np.testing.assert_allclose(left[cluster.egress], came[cluster.ingress])
    np.testing.assert_allclose(left[cluster.nic_tx], came[cluster.nic_rx])
    line = back.flows().line_by_resource(num)
    np.testing.assert_allclose(line[cluster.egress], left[cluster.egress] / 0.4)
    # The most wanted rank sends most, whatever it sent in dispatch.
    assert left[cluster.egress].argmax() == came[cluster.ingress].argmax()


def test_collectives_of_other_sms_are_right_on_one_cluster(folder: Path) -> None:
    """Copies bind at 2 SMs and at 4: half the SMs take twice as long, whatever else runs on the cluster."""
    kernel = load_kernel(folder / "hybrid.yaml", {"copy_rate.over_nic.dispatch": "10 GB/s"})
    cluster = build(H800, 2, Fabric())
    uniform = route(
        Gate("uniform"), contiguous(64, 8), top_k=4, tokens_per_rank=256, ranks_per_node=8, sampling="expected",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    kernel_near = load_kernel(folder / "hybrid.yaml", {"copy_rate.single_node.dispatch": "1 GB/s"})
    pair = [
        Collective(cluster, kernel_near, "dispatch", first + np.arange(8), uniform, 4096.0, comm_sms=sms)
        for first, sms in ((0, 2), (8, 4))
    ]
    together = run_together(cluster, "x", pair).transfers
    for one, x in zip(together, pair, strict=True):
        copied = 256 * uniform.ranks_per_token * 4096.0
        assert one.rank_ends_s.max() - x.latency_s() == pytest.approx(copied / (x.comm_sms * 1e9), rel=1e-6)
        assert bounds.closed_form_s(x)[0] == pytest.approx(one.rank_ends_s.mean(), rel=0.02)
    whole = [collective(kernel, "dispatch", sms) for sms in (2, 4)]
    slow, fast = (
        run_together(x.cluster, "x", [x]).transfers[0].rank_ends_s.max() - x.latency_s() for x in whole
    )
    assert slow == pytest.approx(2 * fast, rel=0.01)


# --- training, prefill and decode ----------------------------------------------------------------------------------


def test_a_skewed_training_step_runs_with_it(folder: Path) -> None:
    """Its collectives grow by the fixed time and, beside compute, by the factors of the file; so does the step."""
    step = TRAINING | {"skew": {"routed_load": 0.1}}
    top = {"model": "mixtral-8x7b", "cluster": ROOMY, "layout": {"pp": 2, "ep": 8}}
    base, later = (run(folder, step, f"{name}.yaml", **top) for name in ("hybrid", "later"))
    for direction, fixed_s, slowdown in (("dispatch", 5e-6, 1.25), ("combine", 7e-6, 1.05)):
        facts = base["exchanges"][direction]
        assert facts["beside_compute_s"] == pytest.approx(slowdown * facts["alone_s"])
        assert facts["alone_s"] > fixed_s
        assert alone_s(later, direction) == pytest.approx(alone_s(base, direction))  # inside a node
    assert base["metrics"]["step_time_s"] >= base["metrics"]["lower_bound_s"] > 0
    even, worse = (run(folder, step | {"skew": {"routed_load": load}}, **top) for load in (0, 0.3))
    assert worse["metrics"]["step_time_s"] > even["metrics"]["step_time_s"]


def test_a_skewed_step_over_nodes_runs_with_it(folder: Path) -> None:
    top = {
        "model": "qwen3-235b-a22b",
        "cluster": ROOMY | {"nodes": 8},
        "layout": {"pp": 4, "ep": 16},
    }
    work = TRAINING | {"skew": {"routed_load": 0.2}}
    base, later = (run(folder, work, f"{name}.yaml", **top) for name in ("hybrid", "later"))
    for direction in DIRECTIONS:
        assert alone_s(later, direction) - alone_s(base, direction) == pytest.approx(
            FIXED_S[direction], rel=1e-6
        )
    assert later["metrics"]["step_time_s"] > base["metrics"]["step_time_s"]


@pytest.mark.parametrize("work", [PREFILL, DECODE], ids=["prefill", "decode"])
def test_prefill_and_decode_run_with_it(folder: Path, work: dict[str, Any]) -> None:
    base, later, slower = (
        run(folder, work, f"{name}.yaml", layout={"ep": 16}) for name in ("hybrid", "later", "slower")
    )
    for direction in DIRECTIONS:
        added = alone_s(later, direction) - alone_s(base, direction)
        assert added == pytest.approx(FIXED_S[direction], rel=1e-6)
        assert alone_s(slower, direction) > alone_s(base, direction)
    assert not any(
        name.endswith(("send", "receive")) for name in base["parts"]
    )  # SMs are held: it is of kind two_hop


def test_decode_holds_phases_by_the_kind_of_the_file(folder: Path) -> None:
    kernel = {"kind": "low_latency", "generation": "direct.yaml"}
    found = run(folder, DECODE | {"kernel": kernel}, layout={"ep": 16})
    assert {"dispatch send", "dispatch receive", "combine send", "combine receive"} <= set(found["parts"])


def test_a_serving_pool_names_a_file_next_to_the_scenario(folder: Path) -> None:
    tree = documents.load(documents.shipped("scenarios")["serving-example"]).tree
    tree["workload"]["arrivals"] = {
        "kind": "poisson", "requests": 20, "requests_per_s": 10,
        "prompt": {"kind": "fixed", "mean": 512}, "output": {"kind": "fixed", "mean": 16},
    }  # fmt: skip
    tree["workload"]["prefill"]["plan"]["kernel"] = {"kind": "two_hop", "generation": "hybrid.yaml"}
    del tree["variants"]
    path = folder / "serving.yaml"
    path.write_text(yaml.safe_dump(tree))
    scenario = resolve(documents.load(path))
    assert isinstance(scenario.workload, Serving)
    pool = scenario.workload.prefill.workload
    assert isinstance(pool, Inference)
    assert (pool.kernel.name, pool.comm_sms, pool.kernel.latency_s.over_nic["combine"]) == (
        "hybrid",
        8,
        17e-6,
    )
    assert run_document(documents.load(path))["metrics"]


@pytest.mark.parametrize(
    ("kernel", "records"),
    [
        ({"kind": "two_hop"}, "ranks"),
        ({"kind": "nccl"}, "ranks"),
        ({"kind": "flat"}, "ranks"),
        ({"kind": "flat", "copies": "per_expert"}, "selections"),
        ({"kind": "low_latency"}, "selections"),
    ],
)
@pytest.mark.parametrize("work", [TOKENS, PREFILL, DECODE], ids=["all_to_all", "prefill", "decode"])
def test_the_traffic_matrix_holds_the_records_that_a_kind_sends(
    folder: Path, work: dict[str, Any], kernel: dict[str, Any], records: str
) -> None:
    """A token of DeepSeek-V2 has 6 selections, on fewer ranks."""
    result = run(folder, work | {"kernel": kernel}, layout={"ep": 16})
    facts = result.get("exchanges", result["metrics"])["dispatch"]
    tokens = {"all_to_all": 4096, "prefill": 2 * 2048, "decode": 16}[work["kind"]]
    each = facts["ranks_per_token"] if records == "ranks" else 6
    sent = 16 * tokens * each * record_bytes(kernel["kind"], "dispatch", "fp8", 5120, 6)
    assert np.sum(result["traffic"]["dispatch"]) == pytest.approx(sent, abs=16 * 16 / 2)  # whole bytes a pair


# --- names, files and what is wrong with them ----------------------------------------------------------------------


@pytest.mark.parametrize("generation", ["two_hop", "deepep_v1_2025_04"])
def test_a_kind_without_a_generation_is_its_default_one(folder: Path, generation: str) -> None:
    assert run(folder, TOKENS, generation)["metrics"] == run(folder, TOKENS, None)["metrics"]


def test_an_override_is_laid_over_the_file(folder: Path) -> None:
    kernel = {
        "kind": "two_hop",
        "generation": "hybrid.yaml",
        "override": {"latency.over_nic.dispatch": "22 us", "latency.over_nic.combine": "34 us"},
    }
    overridden = run(folder, TOKENS | {"kernel": kernel})["metrics"]
    assert overridden == run(folder, TOKENS, "later.yaml")["metrics"]


@pytest.mark.parametrize(
    ("kernel", "wanted"),
    [
        ({"kind": "flat", "generation": "hybrid.yaml"}, "'hybrid.yaml', of kind two_hop; wanted a generation of flat: flat or a file that says 'kind: flat'"),
        ({"kind": "two_hop", "generation": "flat"}, "'flat', of kind flat; wanted a generation of two_hop: deepep_v1_2025_02, deepep_v1_2025_04, deepep_v1_2025_09"),
        ({"kind": "two_hop", "generation": "deepep_v1_202504"}, "did you mean deepep_v1_2025_04?"),
        ({"kind": "two_hop", "generation": "hybird.yaml"}, "did you mean hybrid.yaml?"),
        ({"kind": "two_hop", "generation": 4}, "a valid string"),
        ({"kind": "two_hop", "generaton": "hybrid.yaml"}, "did you mean generation?"),
    ],
)  # fmt: skip
def test_a_wrong_generation_is_reported_where_it_is_named(
    folder: Path, kernel: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(InputError) as caught:
        run(folder, TOKENS | {"kernel": kernel})
    text = str(caught.value)
    line = next(
        i for i, one in enumerate((folder / "scenario.yaml").read_text().splitlines(), 1) if "genera" in one
    )
    assert f"scenario.yaml:{line}:" in text
    assert wanted in text


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("kind: two_hop", "kind: twohop", ("3:7: kind: got 'twohop'", "did you mean two_hop?")),
        ("kind: two_hop\n", "", ("the key 'kind'",)),
        ("value: 0.94", "value: 1.94", ("nic_efficiency_fraction.value", "at most 1")),
        ("comm_sms:", "com_sms:", ("did you mean comm_sms?",)),
    ],
)
def test_problems_of_a_generation_are_reported_in_its_file(
    folder: Path, moesim: Moesim, old: str, new: str, wanted: tuple[str, ...]
) -> None:
    path = folder / "hybrid.yaml"
    path.write_text(path.read_text().replace(old, new))
    told = moesim("check", str(path))
    assert told.code == 2
    assert "hybrid.yaml:" in told.err
    assert all(word in told.err for word in wanted)


def test_the_commands_know_a_generation(folder: Path, moesim: Moesim) -> None:
    path = str(folder / "hybrid.yaml")
    assert "a valid kernel generation" in moesim("check", path).err
    shown = moesim("show", "kernel", path).out
    assert "generation hybrid of two_hop" in shown
    assert "17 us" in shown
    assert moesim("show", "kernel", "two_hop").out == moesim("show", "kernel", "deepep_v1_2025_04").out
    schema = moesim("schema", "kernel").json
    assert schema["properties"]["kind"]["enum"] == ["two_hop", "low_latency", "flat", "nccl"]
    assert "generation" in moesim("schema", "scenario").json["$defs"]["TwoHopSpec"]["properties"]
