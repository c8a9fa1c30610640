"""Software: profiles, the launches that they count, and what a host does to each kind of workload that has one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sim
from sim import documents
from sim.cluster.software import load_software
from sim.errors import InputError
from sim.runs.run import run_file
from sim.schedule.issuing import Issuer
from sim.schedule.programs import LayerTimes, Node, PhaseTime, backward, forward
from sim.show.views.run import views_of
from sim.show.words.run import finding
from sim.trees import flatten
from sim.workload.model import load_model

PROFILES = (
    "deepseek", "megatron_bridge_2026_06", "megatron_core_2026_05", "none", "rtp_llm", "sglang_2025_05", "sglang_2026_05",
)  # fmt: skip
TRAINING = """
name: small
cluster: {hardware: h100, nodes: 2}
model: qwen3-30b-a3b
layout: {ep: 8, pp: 2}
workload:
  kind: training
  schedule: 1f1b
  microbatches: 4
  sequence_tokens: 1024
  overlap: false
  kernel: {kind: nccl}
  gate: {kind: balanced}
  skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}
"""
DECODE = """
name: small
cluster: {hardware: h100, nodes: 1}
model: qwen3-30b-a3b
layout: {ep: 8}
workload:
  kind: decode
  requests_per_gpu: 2
  context_tokens: 512
  gate: {kind: balanced}
  kernel: {kind: low_latency}
"""
PREFILL = DECODE.replace("kind: decode", "kind: prefill").replace(
    "requests_per_gpu: 2\n  context_tokens: 512", "prompts_per_gpu: 2\n  prompt_tokens: 512"
)
SERVING = """
name: small
cluster: {hardware: h100, nodes: 1}
model: qwen3-30b-a3b
workload:
  kind: serving
  arrivals: {kind: poisson, requests_per_s: 4, requests: 12, prompt: {kind: fixed, mean: 512}, output: {kind: fixed, mean: 16}}
  prefill: {ep: 8, instances: 1, plan: {kernel: {kind: two_hop}}}
  decode: {ep: 8, instances: 0, plan: {kernel: {kind: low_latency}}}
"""
KINDS = {"training": TRAINING, "decode": DECODE, "prefill": PREFILL}


def metrics(text: str, folder: Path, *settings: str) -> dict[str, Any]:
    file = folder / "small.yaml"
    file.write_text(text)
    return dict(flatten(run_file(file, settings)["metrics"]))


def problem(text: str, folder: Path, *settings: str) -> str:
    with pytest.raises(InputError) as caught:
        metrics(text, folder, *settings)
    return str(caught.value.problems[0])


def test_the_shipped_profiles_are_the_promised_ones_and_those_that_train_share_what_a_launch_takes() -> None:
    """45.5 ms of DeepSeek's two host threads for 983 launches, less some eight records of a microsecond each."""
    assert tuple(documents.shipped("hardware/software")) == PROFILES
    training = [load_software(name).launch_s for name in PROFILES[:3]]
    assert training == pytest.approx([45.5e-3 / 983 - 8.4e-6] * 3, rel=0.01)
    assert [load_software(name).launch_s for name in PROFILES[4:]] == pytest.approx([10e-6] * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_of_no_cost_changes_nothing_to_the_last_digit(kind: str, tmp_path: Path) -> None:
    plain = metrics(KINDS[kind], tmp_path)
    assert plain["host_s"] == 0.0
    assert metrics(KINDS[kind], tmp_path, "software={launch: 0 s, sync: 0 us}") == plain


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_host_sets_the_time_and_twice_as_slow_twice_the_time(kind: str, tmp_path: Path) -> None:
    one = metrics(KINDS[kind], tmp_path, "software={launch: 10 ms}")
    two = metrics(KINDS[kind], tmp_path, "software={launch: 20 ms}")
    assert two["step_time_s"] / one["step_time_s"] == pytest.approx(2.0, rel=0.01)
    assert (
        one["host_s"] == pytest.approx(one["step_time_s"], rel=0.05) or kind == "training"
    )  # which has bubbles


def test_a_graph_saves_all_launches_but_one(tmp_path: Path) -> None:
    plain = metrics(DECODE, tmp_path)
    graph = metrics(DECODE, tmp_path, "software={launch: 1 ms, graphs: decode}")
    assert graph["host_s"] == pytest.approx(1e-3 + max(0.0, graph["host_s"] - 1e-3))
    # One launch of the layers, and one of the ends, which take less.
    assert plain["step_time_s"] + 1e-3 < graph["step_time_s"] < plain["step_time_s"] + 2e-3
    assert metrics(PREFILL, tmp_path, "software={launch: 1 ms, graphs: decode}")["host_s"] > 0.5


def test_the_time_between_steps_is_added_to_each(tmp_path: Path) -> None:
    plain = metrics(DECODE, tmp_path)
    later = metrics(DECODE, tmp_path, "software={step: 3 ms}")
    assert later["step_time_s"] == pytest.approx(plain["step_time_s"] + 3e-3)
    assert later["host_s"] == pytest.approx(3e-3)


@pytest.mark.slow
def test_serving_takes_the_host_of_its_passes(tmp_path: Path) -> None:
    plain, hosted = (metrics(SERVING, tmp_path, *given) for given in ((), ("software={step: 50 ms}",)))
    # Fifteen steps follow the first token of each request.
    assert hosted["tpot.mean_s"] > plain["tpot.mean_s"] + 0.047
    assert hosted["host_s"] > 12 * 0.05 / 2  # steps of several requests
    assert hosted["ttft.mean_s"] > plain["ttft.mean_s"] + 0.05


def test_a_pass_of_a_profile_is_the_profile_of_a_file_too(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(next(Path("hardware/software").glob("rtp_llm.yaml")).read_text().replace("rtp_llm", "own"))
    assert metrics(DECODE, tmp_path, "software=own.yaml") == metrics(DECODE, tmp_path, "software=rtp_llm")


def test_bad_software_is_told_with_the_nearest_right_thing(tmp_path: Path) -> None:
    assert "did you mean sglang_2026_05?" in problem(DECODE, tmp_path, "software=sglang_2026_5")
    assert "did you mean launch?" in problem(DECODE, tmp_path, "software={lunch: 5 us}")
    assert "wanted" in problem(DECODE, tmp_path, "software={launch: 5}")
    flows = "name: f\ncluster: {hardware: h100, nodes: 2}\nworkload: {kind: collective, op: all_reduce, bytes_per_rank: 1 MB}\n"
    assert "none: collective has no launches of a host" in problem(flows, tmp_path, "software=deepseek")


# --- counts -------------------------------------------------------------------------------------------------


def _launches(program: tuple[Node, ...]) -> dict[str, tuple[int, int]]:
    return {node.name: (node.launches, node.syncs) for node in program}


def test_launches_of_a_layer_are_those_of_the_list_of_the_stack() -> None:
    none = PhaseTime(launches=1)
    layer = (LayerTimes(3, True, none, none, none, none, none, none),)
    software = load_software("megatron_bridge_2026_06")
    issuer = Issuer(
        software,
        load_model("qwen3-30b-a3b"),
        "training",
        local_experts=4,
        tp=8,
        least_s=3e-6,
        reads_counts=True,
    )
    # norm, attention, router, permute, and the collectives of TP; then 4 and 2 an expert, without a shared one.
    assert _launches(issuer.issued(forward(layer))) == {
        "attn(F)": (2 + 12 + 20 + 26 + 2, 2),
        "dispatch(F)": (6, 1),
        "mlp(F)": (4 + 4 * 2, 0),
        "combine(F)": (7, 0),
    }
    assert _launches(issuer.issued(backward(layer))) == {
        "combine(B)": (5, 0),
        "mlp(B)": (5 + 4 * 2, 0),
        "mlp(W)": (4 * 2, 0),
        "dispatch(B)": (6, 0),
        "attn(B)": (4 + 14 + 14 + 8 + 3, 0),
        "attn(W)": (2 + 1, 0),
    }


def test_sends_of_a_stage_are_issued_each_way_and_waited_for_once() -> None:
    """Weight gradients go nowhere; a pair's two ways are one exchange, as Megatron's are."""
    none = PhaseTime(launches=1)
    layer = (LayerTimes(3, True, none, none, none, none, none, none),)
    software = load_software("megatron_bridge_2026_06")
    assert software.launches is not None
    assert software.launches.stage is not None
    stage = replace(software.launches.stage, forward=5, backward=7, syncs=1)
    software = replace(software, launches=replace(software.launches, stage=stage))
    issuer = Issuer(software, load_model("qwen3-30b-a3b"), "training", local_experts=4, tp=1, least_s=3e-6)
    programs = [forward(layer), backward(layer), forward(layer) + backward(layer)]
    programs.append(tuple(node for node in backward(layer) if node.name.endswith("(W)")))
    more = []
    for program in programs:
        own, pipelined = (replace(issuer, pp=pp).issued(program)[0] for pp in (1, 2))
        more.append((pipelined.launches - own.launches, pipelined.syncs - own.syncs))
    assert more == [(5, 1), (7, 1), (12, 1), (0, 0)]


def test_launches_that_moesims_list_lacks_take_the_device_their_constant_time() -> None:
    layer = (LayerTimes(3, True, *[PhaseTime(1.0, launches=30)] * 6),)
    issuer = Issuer(
        load_software("rtp_llm"), load_model("deepseek-v3"), "training", local_experts=2, tp=1, least_s=0.25
    )
    attention, _, mlp, _ = issuer.issued(forward(layer))
    assert attention.fixed_s == 1.0 + (3 + 24 + 16 + 0 - 30) * 0.25
    assert mlp.fixed_s == 1.0  # 12 launches, of 30 in moesim's list


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_profile_runs_and_only_adds_time(kind: str, name: str, tmp_path: Path) -> None:
    plain, hosted = metrics(KINDS[kind], tmp_path), metrics(KINDS[kind], tmp_path, f"software={name}")
    assert hosted["host_s"] > 0
    assert hosted["step_time_s"] > plain["step_time_s"]


def test_a_synchronisation_costs_where_a_dispatch_has_no_slots_for_all_tokens(tmp_path: Path) -> None:
    sync = "software={sync: 1 ms}"
    assert metrics(DECODE, tmp_path, sync)["host_s"] == 0.0  # low-latency kernels read nothing back
    two_hop, alone = PREFILL.replace("low_latency", "two_hop"), "workload.overlap=false"
    plain, drained = (metrics(two_hop, tmp_path, alone, *given) for given in ((), (sync,)))
    # One dispatch in each of the 48 layers, waited for: every synchronisation is a millisecond.
    assert drained["step_time_s"] == pytest.approx(plain["step_time_s"] + 48e-3, rel=1e-6)
    assert drained["host_s"] == pytest.approx(48e-3, rel=1e-6)


def test_a_sweep_may_take_software_as_an_axis(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(DECODE)
    sweep = tmp_path / "sweep.yaml"
    axes = "axes: {software: [none, sglang_2026_05, {launch: 1 ms}]}\nobjectives: {tpot_s: minimise}\n"
    sweep.write_text(f"name: hosts\nbase: small.yaml\n{axes}")
    points = sim.sweep(sweep, jobs=1)["points"]
    steps = [point["metrics"]["step_time_s"] for point in points]
    assert steps == sorted(steps)
    assert steps[0] < steps[2]


def test_a_run_without_software_says_what_the_nearest_profile_would_add(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(TRAINING)
    result = run_file(file)
    added, plain = result["host"], result["metrics"]["step_time_s"]
    hosted = metrics(TRAINING, tmp_path, f"software={added['software']}")["step_time_s"]
    assert added["software"] == "megatron_core_2026_05"
    assert added["adds_s"] == pytest.approx(hosted - plain, rel=0.25)
    assert added["adds_fraction"] == added["adds_s"] / plain
    (line,) = [line for line in finding(views_of(result)) if "host time" in line]
    assert "software megatron_core_2026_05 would add about" in line
    assert "host" not in run_file(file, ("software=megatron_core_2026_05",))


@pytest.mark.slow
def test_graphs_give_back_what_the_host_takes_of_few_requests() -> None:
    steps = {name: run["metrics"]["step_time_s"] for name, run in run_file("decode-host")["variants"].items()}
    assert steps["launched"] > 1.9 * steps["no-host"]
    assert steps["graphs"] < 1.01 * steps["no-host"]
    assert steps["launched-90"] < 1.2 * steps["no-host-90"]
