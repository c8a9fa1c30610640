"""Loads as people have them: recorded by layer, drawn lognormal, balanced from earlier ones, and dropped above a capacity."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import InfeasibleError, InputError
from sim.runs.training_step import Step
from sim.scenario.resolve import resolve
from sim.scenario.settings import read
from sim.scenario.training import Training
from sim.workload.recorded_loads import load_loads

BALANCED = "{routed_load: 0, kernel_jitter: 0, gpu_spread: 0}"
HOT = np.full((3, 8), 50.0)
"""Three layers of 8 experts on 4 ranks: one expert, of another rank in each, has half of all selections."""
for i, expert in enumerate((0, 3, 6)):
    HOT[i, expert] = 350.0
LONG = "Layer_ID,Expert_ID,Num_Tokens\n" + "".join(
    f"{layer},{expert},{HOT[layer, expert]:g}\n" for expert in range(8) for layer in (2, 0, 1)
)
A2A = """
name: recorded
cluster: {hardware: h800, nodes: 1}
model: mixtral-8x7b
layout: {ep: 4}
workload:
  kind: all_to_all
  tokens_per_rank: 2048
  gate: {kind: loads, file: FILE, sampling: expected}
  kernel: {kind: two_hop, comm_sms: 24}
"""


def write(folder: Path, name: str, content: Any) -> Path:
    file = folder / name
    if file.suffix == ".npy":
        np.save(file, content)
    elif file.suffix == ".csv" and not isinstance(content, str):
        np.savetxt(file, content, delimiter=",")
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def run(file: Path, *settings: str) -> Any:
    scenario = file.parent / "recorded.yaml"
    scenario.write_text(A2A.replace("FILE", file.name))
    return sim.run(str(scenario), settings=settings)


FORMS = [
    ("rows.csv", HOT),
    ("long.csv", LONG),
    ("wide.csv", "layer,e0,e1,e2,e3,e4,e5,e6,e7\n" + "\n".join(f"{i}," + ",".join(map(str, row)) for i, row in enumerate(HOT))),
    ("layers.npy", HOT),
    ("dense.npy", np.vstack([np.zeros(8), HOT])),
    ("steps.npy", np.stack([HOT * 0.25, HOT * 0.75])),
    ("lists.json", HOT.tolist()),
    ("sglang.json", {"logical_count": [(HOT * 0.5).tolist(), (HOT * 0.5).tolist()], "rank": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), FORMS, ids=[name for name, _ in FORMS])
def test_every_form_of_a_recording_is_its_layers_and_never_their_sum(
    name: str, content: Any, tmp_path: Path
) -> None:
    np.testing.assert_allclose(load_loads(write(tmp_path, name, content)), HOT)


def test_one_layer_may_be_a_row_a_column_or_two_columns_by_any_of_their_names(tmp_path: Path) -> None:
    one = ((800.0, 100.0, 100.0),)
    assert load_loads(write(tmp_path, "a.csv", "800,100,100\n")) == one
    assert load_loads(write(tmp_path, "b.csv", "800\n100\n100\n")) == one
    for header in ("expert,load", "expert_id,count", "Expert_Idx,tokens", "logical_expert_id,weight"):
        assert load_loads(write(tmp_path, "c.csv", header + "\n1,100\n0,800\n2,100\n")) == one


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", LONG.replace("1,0,50\n", ""), "wanted each of the experts 0 to 7 once in each layer"),
        ("a.csv", LONG + "1,0,50\n", "experts left out or given twice"),
        ("a.npy", np.zeros((2, 8)), "loads: got no number"),
        ("a.npy", np.ones((2, 2, 2, 2)), "got a table of 2 x 2 x 2 x 2; wanted a table [layers, experts]"),
        ("a.npy", np.ones((4096, 257)), "more than 1,048,576 numbers"),
        ("a.json", "[[1, 2], [3]]", "no lists of equal lengths"),
        ("a.json", '{"load_by_expert": [1, 2]}', "in a mapping at logical_count or"),
        ("a.json", "[[1, NaN]]", "no lists of equal lengths with numbers of 0 or more"),
        ("a.json", "[" * 100_000, "text that is not JSON"),
        ("a.json", "[" + "1," * 3_000_001, "more than 3,000,000 entries"),
        ("a.pt", "", "torch.load('a.pt', weights_only=True)"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recording_says_what_would_be(
    name: str, content: Any, told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        load_loads(write(tmp_path, name, content))
    assert told in str(caught.value)


def test_an_all_to_all_is_that_of_the_slowest_layer_and_says_the_mean(tmp_path: Path) -> None:
    """The fourth layer is even: its ranks receive what the mean rank does, the others' hottest 0.4 / 0.25 of it or less."""
    even = np.vstack([np.full((1, 8), 100.0), HOT])
    file = write(tmp_path, "loads.npy", even)
    whole = run(file)
    alone = [run(file, f"workload.gate.layer={layer}")["metrics"]["dispatch"] for layer in range(4)]
    times_s = [metrics["time_s"] for metrics in alone]
    layers = whole["metrics"]["layers"]
    assert layers["count"] == 4
    assert layers["slowest"] == int(np.argmax(times_s))
    assert layers["dispatch"] == pytest.approx({"mean_s": np.mean(times_s), "worst_s": max(times_s)})
    assert whole["metrics"]["dispatch"]["time_s"] == max(times_s)
    assert times_s[1] == pytest.approx(times_s[2], rel=0.02)  # whichever rank is hot
    assert times_s[1] > 1.3 * times_s[0]
    summed = run(write(tmp_path, "sum.npy", even.sum(axis=0)))["metrics"]["dispatch"]["time_s"]
    assert summed < 0.85 * layers["dispatch"]["mean_s"]
    assert f"layer {layers['slowest']}, the slowest of 4 recorded" in " ".join(whole.finding())


def test_a_layer_that_was_not_recorded_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "loads.npy", np.vstack([np.zeros(8), HOT]))
    with pytest.raises(
        InputError, match=r"gate.layer: got 3; wanted 0 to 2: the file has 3 layers with loads"
    ):
        run(file, "workload.gate.layer=3")
    few = write(tmp_path, "few.csv", "1,2\n3,4\n")
    with pytest.raises(InputError, match="below the header expert,load or layer,expert,load"):
        run(few)


# --- training -------------------------------------------------------------------------------------------------------

TRAINING = """
name: skewed
cluster: {hardware: h100, nodes: 1}
model: mixtral-8x7b
layout: {pp: 1, ep: 8}
workload:
  kind: training
  microbatches: 2
  schedule: 1f1b
  precision: bf16
  dispatch_dtype: bf16
  gate: GATE
  kernel: {kind: two_hop}
  skew: BALANCED
"""


def step(folder: Path, gate: str) -> Step:
    file = folder / "skewed.yaml"
    file.write_text(TRAINING.replace("GATE", gate).replace("BALANCED", BALANCED))
    return Step.from_scenario(resolve(read(str(file))))


def hot_layers(folder: Path, *experts: int) -> str:
    """A recording in which one expert of each layer has three tenths of all selections: 0.3 against 0.1."""
    rows = np.full((len(experts), 8), 1.0)
    rows[np.arange(len(experts)), experts] = 3.0
    return f"{{kind: loads, file: {write(folder, f'hot{len(experts)}.npy', rows).name}}}"


def test_equal_loads_train_as_a_uniform_gate_does(tmp_path: Path) -> None:
    even, uniform = step(tmp_path, "{kind: zipf, exponent: 0}"), step(tmp_path, "{kind: uniform}")
    assert even.routed.loads == pytest.approx(np.ones((33, 8)), rel=1e-6)
    assert even.alone()["step_time_s"] == pytest.approx(uniform.alone()["step_time_s"], rel=1e-3)
    assert even.memory[0].total_bytes == pytest.approx(uniform.memory[0].total_bytes, rel=1e-6)
    assert not uniform.routed.uneven


def test_every_layer_of_a_step_waits_for_the_rank_that_its_own_gate_makes_hot(tmp_path: Path) -> None:
    """Top-2 of weights 3, 1 x 7: P = 0.3 + 0.7 x 3/9 = 0.533, so 0.533 x 8 / 2 = 2.133 times the mean.

    Compute waits for it in each of 32 layers, forward and backward, whichever rank it is; all-to-alls grow by as much at most.
    """
    hot = (0.3 + 7 * 0.1 * 3 / 9) * 8 / 2
    even = step(tmp_path, "{kind: uniform}")
    tasks = even.plan.tasks
    routed_s = sum(node.routed_s for program in tasks.program for node in tasks.programs[program][0])
    even_s = even.alone()["step_time_s"]
    moved_s = 2 * 2 * 32 * sum(even.mean_s(name, overlapped=False) for name in ("dispatch", "combine"))
    times_s = []
    for experts in ((3,), (0, 5)):
        skewed = step(tmp_path, hot_layers(tmp_path, *experts))
        assert skewed.routed.loads.max(axis=1)[:32] == pytest.approx([hot] * 32, rel=1e-4)
        assert skewed.routed.loads[1].argmax() == experts[-1]
        times_s.append(skewed.alone()["step_time_s"])
        longer_s = times_s[-1] - even_s
        assert longer_s > 0.99 * (hot - 1) * routed_s
        assert longer_s < 1.01 * (hot - 1) * (routed_s + moved_s)
    assert times_s[0] == pytest.approx(times_s[1], rel=0.01)


def test_a_rank_that_is_hot_in_every_layer_keeps_more_than_one_that_is_hot_in_half(tmp_path: Path) -> None:
    """What it keeps goes with its load: 2.133 in hot layers, (2 - 0.533) / 7 x 8 / 2 = 0.838 in the others."""
    hot, cold = 2 + 2 / 15, (2 - 8 / 15) / 7 * 4
    even, whole, half = (
        step(tmp_path, gate).memory[0].activations_bytes
        for gate in ("{kind: uniform}", hot_layers(tmp_path, 3), hot_layers(tmp_path, 0, 5))
    )
    assert 1.2 * even < whole < hot * even  # attention keeps as much as before
    assert (half - even) / (whole - even) == pytest.approx(((hot + cold) / 2 - 1) / (hot - 1), rel=1e-3)


def test_a_capacity_keeps_the_hot_rank_of_a_step_to_it(tmp_path: Path) -> None:
    gate = "{kind: zipf, exponent: 0.8, capacity_factor: 1.0, drop: true}"
    free, held = step(tmp_path, gate.replace(", capacity_factor: 1.0, drop: true", "")), step(tmp_path, gate)
    assert free.routed.loads.max() > 1.5
    assert held.routed.loads.max() <= 1 + 1e-9
    assert held.routed.dropped_fraction == pytest.approx(1 - held.routed.loads.mean(), abs=1e-3)
    even_s = step(tmp_path, "{kind: uniform}").alone()["step_time_s"]
    assert held.alone()["step_time_s"] == pytest.approx(even_s, rel=0.02)
    assert free.alone()["step_time_s"] > 1.1 * even_s


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (
            "{kind: uniform, drop: true}",
            "gate.drop: got true without a capacity_factor; wanted both, or neither",
        ),
        ("{kind: uniform, capacity_factor: 1.5, drop: false}", "got false next to capacity_factor 1.5"),
        ("{kind: lognormal, drift: 1.5}", "workload.gate.drift"),
    ],
)
def test_a_capacity_is_what_drops(gate: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        step(tmp_path, gate)


@pytest.mark.slow
def test_popular_experts_cost_the_v3_step_half_as_much_again_and_the_memory_that_it_has() -> None:
    """At zipf 0.6 the busiest rank of a layer has some 3.6 times the mean, whose experts are a third of the compute."""
    settings = ("expect={}", "workload.gate={kind: zipf, exponent: 0.6}", f"workload.skew={BALANCED}")
    skewed = Step.from_scenario(resolve(read("v3-training-h800", settings)))
    most = skewed.routed.loads.max(axis=1)
    assert 3 < most.mean() < 4
    assert 28 < skewed.alone()["step_time_s"] < 33
    with pytest.raises(InfeasibleError, match="H800"):
        skewed.require_fit()


# --- what a skew inside nodes costs ---------------------------------------------------------------------------------


def skewed_inside(folder: Path, hardware: str, hot: float) -> float:
    """Time of a dispatch on 32 GPUs [s]: in each node one rank is wanted `hot` times as much as the mean, nodes alike."""
    inside = np.repeat([hot, *[(8 - hot) / 7] * 7], 8)
    write(folder, "inside.npy", np.tile(inside, 4))
    scenario = folder / "inside.yaml"
    text = A2A.replace("FILE", "inside.npy, top_groups: 4, num_groups: 8").replace("layout: {ep: 4}\n", "")
    text = text.replace("h800, nodes: 1", f"{hardware}, nodes: 4").replace("mixtral-8x7b", "deepseek-v3")
    scenario.write_text(text.replace("tokens_per_rank: 2048", "tokens_per_rank: 4096"))
    return float(sim.run(str(scenario))["metrics"]["dispatch"]["time_s"])


def test_loads_that_are_even_over_nodes_and_skewed_inside_take_twice_as_long_on_an_h800(
    tmp_path: Path,
) -> None:
    """Reported of DeepEP (its issue 343) at EP32 and 4,096 tokens: at three times the mean, NVLink of the hot rank binds instead
    of NICs that all carry the same; the 450 GB/s of an H100 hide it."""
    even, skewed = (skewed_inside(tmp_path, "h800", hot) for hot in (1, 3))
    assert skewed / even == pytest.approx(2.0, abs=0.15)
    assert skewed_inside(tmp_path, "h100", 3) < 1.1 * skewed_inside(tmp_path, "h100", 1)


# --- replicas that move every microbatch ----------------------------------------------------------------------------

PASS = """
name: moved
cluster: {hardware: h800, nodes: 2}
model: deepseek-v3
workload:
  kind: prefill
  prompt_tokens: 4096
  prompts_per_gpu: 8
  drawn_layers: 2
  gate: {kind: lognormal, spread: 1.2, drift: 1, sampling: expected}
  placement: {kind: per_microbatch, redundant_experts: 16}
  kernel: {kind: two_hop}
"""


def test_replicas_of_a_microbatch_cost_scale_up_bytes_and_win_more_than_a_placement_that_is_forgotten(
    tmp_path: Path,
) -> None:
    """A place a rank, filled anew for each of 58 layers and 2 microbatches with 3 x 7,168 x 2,048 weights in FP8, of which
    every 128 x 128 share a scale of 4 bytes."""
    file = write(tmp_path, "moved.yaml", PASS)
    moved = sim.run(str(file))
    expert = 3 * 7168 * 2048 * (1 + 4 / 128**2)
    copies = moved["exchanges"]["dispatch"]["replica_bytes"] / expert
    assert 0.3 < copies <= 1  # but for ranks that no copy would make lighter
    forgotten, still = (
        sim.run(str(file), settings=(f"workload.placement={placement}",))
        for placement in ("{kind: eplb, redundant_experts: 16}", "{kind: contiguous}")
    )
    for other in (forgotten, still):
        assert "replica_bytes" not in other["exchanges"]["dispatch"]
        assert max(map(max, moved["rank_loads"])) < max(map(max, other["rank_loads"]))
        assert moved["metrics"]["step_time_s"] < other["metrics"]["step_time_s"]

    def ingress(result: Any) -> float:
        return sum(
            link["bytes"] for name, link in result["links"].items() if name.endswith("scale_up/ingress")
        )

    assert ingress(moved) - ingress(still) > 16 * 58 * 2 * copies * expert  # and tokens reach more ranks


def test_a_dispatch_alone_moves_weights_next_to_its_tokens(tmp_path: Path) -> None:
    """Of 8 experts 4 are copied on one node: each rank takes in 3 x 4,096 x 14,336 weights."""
    file = write(tmp_path, "loads.npy", HOT)
    still = run(file, "workload.gate.layer=0")["metrics"]["dispatch"]
    placement = "workload.placement={kind: per_microbatch, redundant_experts: 4}"
    moved = run(file, "workload.gate.layer=0", placement)["metrics"]["dispatch"]
    weights = 3 * 4096 * 14336 * (1 + 4 / 128)
    assert moved["wire_nvlink_bytes"] - still["wire_nvlink_bytes"] == pytest.approx(weights, rel=0.1)
    assert moved["time_s"] > weights / 200e9


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("workload.placement.redundant_experts=0", "redundant_experts: got 0 next to 256 experts on EP16"),
        (
            "fidelity=closed_form",
            "fidelity: got 'closed_form'; wanted 'flow' next to placement per_microbatch",
        ),
    ],
)
def test_replicas_that_cannot_move_are_refused(setting: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        sim.run(str(write(tmp_path, "moved.yaml", PASS)), settings=(setting,))


def test_layers_of_a_pass_take_the_recorded_ones_in_turn_each_with_its_own_hot_rank(tmp_path: Path) -> None:
    """Two microbatches of each recorded layer; half of the selections of a top-2 gate over 7 x 50 + 350 are for one of 8 experts."""
    write(tmp_path, "loads.npy", HOT)
    text = (
        PASS.replace("deepseek-v3", "mixtral-8x7b")
        .replace("nodes: 2", "nodes: 1")
        .replace("  drawn_layers: 2\n", "")
    )
    text = text.replace("{kind: lognormal, spread: 1.2, drift: 1,", "{kind: loads, file: loads.npy,")
    text = text.replace("{kind: per_microbatch, redundant_experts: 16}", "{kind: contiguous}")
    loads = np.array(sim.run(str(write(tmp_path, "pass.yaml", text)))["rank_loads"])
    assert loads.shape == (3 * 2, 8)
    assert loads.argmax(axis=1).tolist() == [0, 0, 3, 3, 6, 6]
    hot = (0.5 + 7 * (0.5 / 7) * 0.5 / (1 - 0.5 / 7)) * 8 / 2
    assert loads.max(axis=1) / loads.mean(axis=1) == pytest.approx(np.full(6, hot), rel=1e-3)


@pytest.mark.parametrize(
    ("gate", "asked", "spread"),
    [("balanced", {}, 0.0), ("uniform", {}, 0.075), ("balanced", {"routed_load": 0.1}, 0.1)],
)
def test_a_gate_that_balances_gives_every_rank_as_much_in_training_unless_a_spread_is_asked_for(
    gate: str, asked: dict[str, float], spread: float
) -> None:
    step = {
        "kind": "training",
        "precision": "bf16",
        "schedule": "1f1b",
        "kernel": {"kind": "two_hop"},
        "skew": asked,
    }
    work = resolve(
        read(
            {
                "name": "mine", "cluster": {"hardware": "h800", "nodes": 1}, "model": "mixtral-8x7b", "layout": {"ep": 8},
                "workload": step | {"gate": {"kind": gate}, "microbatches": 1, "recompute": "full"},
            }
        )
    ).workload  # fmt: skip
    assert isinstance(work, Training)
    assert work.skew.routed_load == spread
