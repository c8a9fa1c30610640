"""The best design of each machine over a space of designs: exhaustive counts, what holding costs, and how a file is read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import shared
import sim
from laddering import run
from sim import documents
from sim.errors import InfeasibleError, InputError
from sim.ladders import search as searching
from sim.ladders.spec import ladder_of
from sim.show.pages.ladder import ladder_html
from sim.show.plots import kinds as plots
from sim.show.tables import search as tables
from sim.show.views.ladder import ladder_view
from sim.show.words import ladder as words
from sim.sweeps.points import PointRow, evaluate
from sweeping import exchange

pytestmark = pytest.mark.xdist_group("ladders")

BASE: dict[str, Any] = {
    "name": "searched",
    **exchange(tokens_per_rank=1024, gate={"kind": "group_limited", "sampling": "expected"}),
    "cluster": {"hardware": "h100", "nodes": 4},
}
WAYS: dict[str, dict[str, Any]] = {
    "two hops": {"workload.kernel": {"kind": "two_hop", "comm_sms": 24}},
    "flat": {"workload.kernel": {"kind": "flat", "copies": "per_rank", "comm_sms": 24}},
}
AXES: dict[str, Any] = {"layout.ep": [16, 32], "way": WAYS, "workload.gate.top_groups": [4, 8]}
SLOW = {"cluster.hardware": "h100", "cluster.override": {"gpu.scale_up.bandwidth": "20 GB/s"}}
"""A machine on which two hops are worse than one: its NVLink is slower than its NIC."""
METRIC = "dispatch.time_s"


def ladder(**search: Any) -> dict[str, Any]:
    return {
        "name": "searched",
        "base": BASE,
        "hardware": {"h100": {"cluster.hardware": "h100"}, "slow": SLOW, "twin": {"cluster.hardware": "h100"}},
        "metric": METRIC,
        "search": {"reference": "h100", "machines": ["h800", "slow", "twin"], "axes": AXES, **search},
    }  # fmt: skip


def ran(**search: Any) -> dict[str, Any]:
    return run(documents.dumps(ladder(**search)))


HOLD = {
    "ep16": {"layout.ep": 16},
    "two-hops": {"way": "two hops"},
    "bf16": {"workload.dispatch_dtype": "bf16"},
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return ran(hold=HOLD)


def time_s(values: dict[str, Any], machine: dict[str, Any]) -> float:
    """A design run by itself."""
    return float(sim.run(BASE, {**values, **machine})["metrics"]["dispatch"]["time_s"])


@pytest.fixture(scope="module")
def times() -> dict[str, dict[tuple[int, str, int], float]]:
    grid = list(itertools.product(*AXES.values()))
    hardware = {"h100": {}, "h800": {"cluster.hardware": "h800"}, "slow": SLOW}
    return {
        on: {
            (ep, way, groups): time_s(
                {"layout.ep": ep, "workload.gate.top_groups": groups, **WAYS[way]}, machine
            )
            for ep, way, groups in grid
        }
        for on, machine in hardware.items()
    }


def test_the_best_is_the_least_of_all_designs(document: dict[str, Any], times: dict[str, Any]) -> None:
    search = document["search"]
    assert search["num_designs"] == 8
    assert search["best"]["metric"] == pytest.approx(min(times["h100"].values()))
    for on in ("h800", "slow"):
        machine = search["machines"][on]
        assert machine["best"]["metric"] == pytest.approx(min(times[on].values()))
        gap = min(times[on].values()) / min(times["h100"].values()) - 1
        assert machine["gap_fraction"] == pytest.approx(gap)


def test_a_held_choice_leaves_the_best_of_those_that_have_it(
    document: dict[str, Any], times: dict[str, Any]
) -> None:
    held = document["search"]["machines"]["slow"]["held"]["two-hops"]
    ours, theirs = (
        min(time for (_, way, _), time in times[on].items() if way == "two hops") for on in ("slow", "h100")
    )
    assert ours > min(times["slow"].values())
    assert held["gap_fraction"] == pytest.approx(ours / theirs - 1)
    assert held["costs_machine_fraction"] == pytest.approx(ours / min(times["slow"].values()) - 1)
    assert held["costs_reference_fraction"] == pytest.approx(theirs / min(times["h100"].values()) - 1)


def test_holding_costs_each_machine_something_or_nothing_and_the_gaps_follow(
    document: dict[str, Any],
) -> None:
    for machine in document["search"]["machines"].values():
        for held in machine["held"].values():
            ours, theirs = held["costs_machine_fraction"], held["costs_reference_fraction"]
            assert ours >= 0
            assert theirs >= 0
            gap = (1 + machine["gap_fraction"]) * (1 + ours) / (1 + theirs) - 1
            assert held["gap_fraction"] == pytest.approx(gap, abs=1e-9)


def test_a_machine_like_the_reference_loses_nothing(document: dict[str, Any]) -> None:
    twin = document["search"]["machines"]["twin"]
    assert twin["gap_fraction"] == twin["cost_fraction"] == 0
    assert twin["bought_back_fraction"] is None
    assert all(held["gap_fraction"] == 0 for held in twin["held"].values())


def test_a_design_of_its_own_buys_back_what_the_reference_s_costs(
    document: dict[str, Any], times: dict[str, Any]
) -> None:
    """B, the reference's design kept, less C, the machine's best, over B less A, the reference's best."""
    best = min(times["h100"].values())
    first = min(times["h100"], key=lambda point: times["h100"][point])
    kept, own = times["slow"][first], min(times["slow"].values())
    assert kept > 1.02 * best
    assert kept > own
    slow = document["search"]["machines"]["slow"]
    assert slow["cost_fraction"] == pytest.approx(kept / best - 1)
    assert slow["bought_back_fraction"] == pytest.approx((kept - own) / (kept - best))
    assert slow["best"]["values"]["way"] == "flat"
    near = [times["slow"][point] for point, time in times["h100"].items() if time <= 1.01 * best]
    of = slow["of_reference_design"]
    assert [of["metric_low"], of["metric_high"]] == pytest.approx([min(near), max(near)])
    assert of["designs"] == len(near)


def test_nothing_is_bought_back_where_the_same_design_is_best(document: dict[str, Any]) -> None:
    h800 = document["search"]["machines"]["h800"]
    assert h800["best"]["values"] == document["search"]["best"]["values"]
    assert h800["cost_fraction"] > 0.02
    assert h800["bought_back_fraction"] is None


def test_what_binds_the_best_designs_is_what_binds_them_by_themselves(document: dict[str, Any]) -> None:
    """An NVLink of 20 GB/s binds two hops; nothing of an all-to-all is a step, of which communication would be a part."""
    slow = document["search"]["machines"]["slow"]["held"]["two-hops"]
    for best, machine in ((slow["best"], SLOW), (slow["reference_best"], {"cluster.hardware": "h100"})):
        settings = {key: value for key, value in best["values"].items() if key != "way"} | WAYS["two hops"]
        alone = sim.run(BASE, {**settings, **machine})["metrics"]["dispatch"]
        assert best["binding"] == alone["binding"]
        assert best["exposed_fraction"] is None
    assert slow["best"]["binding"] == "scale_up"
    assert any(
        sentence.startswith("Then NVLink binds on ") for sentence in words.finding(ladder_view(document))
    )


def test_what_binds_a_pass_is_what_most_of_its_time_goes_with() -> None:
    """Under TP8 its reductions, bytes over NVLink, stand in the time alone; with the best design NVLink is hidden, and compute is not."""
    text = """\
name: bound
base: v3-prefill-ep32
set: {workload.shared_experts: whole, workload.kernel.comm_sms: 12}
search:
  reference: h100
  machines: [h800]
  axes: {layout.tp: [1, 8]}
  objective: tokens_per_s_per_gpu
  hold: {tp8: {layout.tp: 8}}
"""
    document = run(text)
    machine = document["search"]["machines"]["h800"]
    free, held = machine["best"], machine["held"]["tp8"]["best"]
    assert (free["binding"], held["binding"]) == ("compute", "scale_up")
    asked = {"layout.tp": 8, "workload.shared_experts": "whole", "workload.kernel.comm_sms": 12}
    alone = sim.run("v3-prefill-ep32", asked)
    reduced = alone["where"]["reductions"] / alone["metrics"]["step_time_s"]
    assert held["shares"]["scale_up"] == pytest.approx(reduced, rel=0.05)
    assert free["shares"]["scale_up"] < 0.01
    for best in (free, held, document["search"]["best"]):
        assert (
            0.5 < sum(best["shares"].values()) <= 1.02
        )  # the rest is fixed times, and clocks of attention's softmax
    said = " ".join(words.finding(ladder_view(document)))
    assert "What binds is NVLink (44 %) on H800 and compute (43 %) on H100" in said


def test_a_rate_is_compared_by_its_reciprocal() -> None:
    rate = {"objective": "dispatch.logical_nvlink_bytes_per_s", "axes": {"workload.tokens_per_rank": [1024]}}
    search = ran(machines=["slow"], **rate)["search"]
    assert search["objective"]["more_is_better"]
    slow = search["machines"]["slow"]
    assert slow["gap_fraction"] == pytest.approx(search["best"]["metric"] / slow["best"]["metric"] - 1)
    assert slow["gap_fraction"] > 0


def test_a_machine_without_fp8_takes_bf16_and_says_so() -> None:
    search = ran(machines=["a800"], axes={"layout.ep": [32]})["search"]
    a800 = search["machines"]["a800"]
    bf16 = {"layout.ep": 32, "workload.dispatch_dtype": "bf16", "cluster.hardware": "a800"}
    assert a800["best"]["metric"] == pytest.approx(time_s(bf16, {}))
    assert a800["of_reference_design"]["replaced"] == [
        {"key": "workload.dispatch_dtype", "from": "fp8", "to": "bf16"}
    ]
    assert "with dispatch dtype fp8 by bf16" in " ".join(
        words.finding(ladder_view(ran(machines=["a800"], axes={"layout.ep": [32]})))
    )


PREFILL = """\
name: fits
base: v3-prefill-ep32
hardware:
  h100: {cluster.hardware: h100}
  less: {cluster.hardware: h100, cluster.override: {gpu.hbm.capacity: CAPACITY}}
search:
  reference: h100
  machines: [less]
  axes: {cluster: {two nodes: {cluster.nodes: 2, workload.placement.redundant_experts: 16}}, workload.prompts_per_gpu: [2, 4]}
  objective: {tokens_per_s_per_gpu: maximise}
  constraints: [ttft_s <= 10 s]
"""


def test_a_design_that_a_machine_has_no_room_for_does_not_run() -> None:
    less = run(PREFILL.replace("CAPACITY", "50 GB"))["search"]["machines"]["less"]
    assert less["best"] is None
    assert less["gap_fraction"] is less["cost_fraction"] is None
    of = less["of_reference_design"]
    assert of["refused"] == of["designs"]
    assert "50 GB" in of["reason"]
    assert of["metric_low"] is None


def test_a_search_of_which_nothing_runs_on_the_reference_is_infeasible() -> None:
    with pytest.raises(
        InfeasibleError, match=r"no design of the search runs on h100; the first one: .*ttft_s"
    ):
        run(PREFILL.replace("CAPACITY", "80 GB").replace("10 s", "1 us"))


def test_a_design_that_dies_of_a_bug_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(document: documents.Document, constraints: Any, *, run: bool = True) -> PointRow:
        if run and document.get(("layout", "ep")) == 32:
            return PointRow("failed", "ZeroDivisionError: a bug")
        return evaluate(document, constraints, run=run)

    monkeypatch.setattr(searching, "evaluate", dies)
    found = ran(machines=["h800"], axes={"layout.ep": [16, 32]})
    assert found["search"]["failed"] == {"designs": 2, "reason": "ZeroDivisionError: a bug"}
    assert "2 designs failed" in words.finding(ladder_view(found))[-1]


def test_ep_moves_to_the_nearest_that_fits() -> None:
    """A GPU of 60 GB has room for the experts at EP32, which the reference's best, of two nodes, leaves no room for."""
    text = PREFILL.replace("CAPACITY", "60 GB").replace("  constraints: [ttft_s <= 10 s]\n", "")
    text = text.replace(
        "{cluster: {two nodes: {cluster.nodes: 2, workload.placement.redundant_experts: 16}}, workload.prompts_per_gpu: [2, 4]}",
        "{layout.ep: [16, 32]}",
    )
    search = run(text)["search"]
    assert search["best"]["values"] == {"layout.ep": 16}
    of = search["machines"]["less"]["of_reference_design"]
    assert of["replaced"] == [{"key": "layout.ep", "from": 16, "to": 32}]
    assert search["machines"]["less"]["bought_back_fraction"] is None


def test_the_answer_stands_first(document: dict[str, Any]) -> None:
    view = ladder_view({**document, "question": {"ask": "What does a slower NVLink cost?"}})
    said = words.finding(view)
    search = document["search"]["machines"]["h800"]
    gap = f"{100 * search['gap_fraction']:.1f} % longer than H100"
    assert said[0].startswith(f"With the best design for each, H800 takes {gap}; with ")
    assert not any(key in sentence for sentence in said for key in ("layout.", "workload.", "_fraction"))
    assert "<h1>What does a slower NVLink cost?</h1>" in ladder_html(
        {**document, "question": {"ask": view.ask}}
    )
    picture = plots.picture("search", document)
    assert len(picture.data) == 3 + 4  # gaps of three machines; costs of these and of the reference
    assert [len(grid.rows) for grid in tables.grids(view.search)] == [4, 4, 4]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "where", "wanted"),
    [
        ("machines", ["h100"], "search.machines", "other than the reference"),
        ("axes", {"layout.epp": [8]}, "layout.epp", "ep"),
        ("axes", {}, "search.axes", "1"),
        ("objective", "dispatch.tim_s", "objective", "dispatch.time_s"),
        ("hold", {"ep16": {"layout.epp": 8}}, "layout.epp", "ep"),
        ("constraints", ["layout.ep <="], "constraints", ""),
    ],
)
def test_what_is_wrong_with_a_search_is_told_at_its_place(
    key: str, value: Any, where: str, wanted: str
) -> None:
    text = documents.dumps(ladder(**{key: value}))
    with pytest.raises(InputError) as caught:
        run(text)
    text = str(caught.value)
    assert where in text
    assert wanted in text
    assert "small.yaml:" in text


def test_a_search_names_its_metric_alone() -> None:
    tree = ladder(objective=METRIC)
    del tree["metric"]
    assert ladder_of(documents.loads(documents.dumps(tree), "small.yaml")).spec.metric == METRIC


# --- shipped ---------------------------------------------------------------------------------------------------------

RESTRICTED = {
    "restriction-training": "h800",
    "restriction-small": "h800",
    "restriction-prefill-16": "h800",
    "restriction-prefill-32": "h800",
    "restriction-a800": "a800",
}
"""Ladder -> the machine whose NVLink was cut."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RESTRICTED)
def test_a_cut_nvlink_is_small_for_the_best_designs_and_shows_with_tensor_parallelism_held(name: str) -> None:
    machine = shared.ladder(name)["search"]["machines"][RESTRICTED[name]]
    held = machine["held"]["tp8"]
    assert 0 <= machine["gap_fraction"] <= 0.10
    assert held["gap_fraction"] >= machine["gap_fraction"] + 0.03
    assert (
        held["costs_machine_fraction"] > held["costs_reference_fraction"] > 0.03
    )  # no choice is told without its price
    assert machine["cost_fraction"] >= machine["gap_fraction"] - 1e-9
    exposed = [held[best]["exposed_fraction"] for best in ("best", "reference_best")]
    assert exposed[0] > exposed[1] > 0  # TP's reductions are what a slower NVLink holds up


@pytest.mark.slow
@pytest.mark.parametrize("name", ["restriction-prefill-16", "restriction-prefill-32", "restriction-small"])
def test_gaps_are_the_same_to_half_a_point_whatever_is_drawn(name: str, tmp_path: Path) -> None:
    """Ranks as unlike as in a real step, under two seeds, which say which rank is late: every gap stays where it is."""
    shipped = documents.load(documents.data_folder("scenarios") / "ladders" / f"{name}.yaml").tree
    gaps = []
    for seed in (1, 2):
        unlike = {"seed": seed, "workload.skew": {"kernel_jitter": 0.02, "gpu_spread": 0.015}}
        tree = {**shipped, "set": {**shipped.get("set", {}), **unlike}}
        (tmp_path / "unlike.yaml").write_text(documents.dumps(tree))
        gaps.append(searched_gaps(sim.ladder(str(tmp_path / "unlike.yaml"))))
    assert gaps[0] == pytest.approx(gaps[1], abs=0.005)
    assert gaps[0] == pytest.approx(
        searched_gaps(shared.ladder(name)), abs=0.01
    )  # of ranks that are more alike


@pytest.mark.slow
@pytest.mark.parametrize("name", ["restriction-prefill-16", "restriction-prefill-32"])
def test_a_second_all_reduce_a_layer_is_what_split_shared_experts_cost_under_tp8(
    name: str, tmp_path: Path
) -> None:
    """What it adds to the time goes as NVLink, 450 to 200, but for all-to-alls that show less next to it."""
    tree = documents.load(documents.data_folder("scenarios") / "ladders" / f"{name}.yaml").tree
    tree["set"]["workload.shared_experts"] = "split"
    (tmp_path / "split.yaml").write_text(documents.dumps(tree))
    whole, split = (
        found["search"]["machines"]["h800"]["held"]["tp8"]
        for found in (shared.ladder(name), sim.ladder(str(tmp_path / "split.yaml")))
    )
    assert split["gap_fraction"] > whole["gap_fraction"] + 0.10
    assert split["costs_reference_fraction"] > whole["costs_reference_fraction"] + 0.20
    more = {on: 1 / split[on]["metric"] - 1 / whole[on]["metric"] for on in ("best", "reference_best")}
    assert more["best"] / more["reference_best"] == pytest.approx(450 / 200, rel=0.06)


@pytest.mark.slow
def test_a_gap_of_training_is_the_same_to_half_a_point_whatever_is_drawn() -> None:
    """A design with TP8 on both machines, under two seeds which say which rank is late."""
    held: dict[str, Any] = {
        "layout": {"tp": 8, "pp": 16, "ep": 64}, "workload.microbatches": None, "workload.global_batch": 16384,
        "workload.kernel.comm_sms": 12,
    }  # fmt: skip

    def gap(seed: int, **spread: float) -> float:
        drawn = held | {"seed": seed, "workload.skew": {"routed_load": 0, **spread}}
        ours, theirs = (
            sim.run("v3-training-h800", {**drawn, "cluster.hardware": on})["metrics"]["step_time_s"]
            for on in ("h800", "h100")
        )
        return float(ours / theirs - 1)

    first, second = (gap(seed, kernel_jitter=0.02, gpu_spread=0.015) for seed in (1, 2))
    assert first == pytest.approx(second, abs=0.005)
    assert first == pytest.approx(gap(1, kernel_jitter=0, gpu_spread=0), abs=0.015)


def searched_gaps(document: Any) -> dict[str, float]:
    """Gap of the H800 with the best designs, and with each choice held."""
    machine = document["search"]["machines"]["h800"]
    return {"best": machine["gap_fraction"]} | {
        name: held["gap_fraction"] for name, held in machine["held"].items()
    }


@pytest.mark.slow
def test_the_cut_of_an_h20_is_compute_and_no_design_buys_it_back() -> None:
    """Dense FP8 rates are 1,979 and 296 TFLOP/s; what is not compute is no slower, and its HBM is faster."""
    h20 = shared.ladder("restriction-h20")["search"]["machines"]["h20"]
    assert 1.5 < h20["gap_fraction"] < 1979 / 296 - 1
    assert (h20["bought_back_fraction"] or 0.0) < 0.15
