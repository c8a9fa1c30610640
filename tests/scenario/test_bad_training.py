"""Bad input of training scenarios: each problem at its place; what no machine can run says why; never a traceback."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import sim
from sim import documents
from sim.errors import InfeasibleError, InputError, MoesimError
from sim.runs.run import run_document
from sim.scenario.resolve import resolve

GOOD = """\
name: mine
cluster: {hardware: h100, nodes: 2}
model: mixtral-8x7b
layout: {pp: 2, ep: 8}
workload:
  kind: training
  microbatches: 8
  schedule: dualpipev
  recompute: full
  kernel: {kind: two_hop, comm_sms: 20}
  skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}
"""


def told(text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        run_document(documents.loads(text, "mine.yaml"))
    return [str(problem) for problem in caught.value.problems]


def spoilt(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_the_scenario_to_be_spoilt_is_good() -> None:
    assert run_document(documents.loads(GOOD, "mine.yaml"))["metrics"]["step_time_s"] > 0


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("microbatches: 8", "microbatches: 3", "7:17: workload.microbatches", ["3 microbatches", "at least 4"]),
        ("8\n  schedule: dualpipev", "5\n  schedule: dualpipe", "7:17: workload.microbatches", ["5 microbatches", "even number of at least 4"]),
        ("8\n  schedule: dualpipev", "2\n  schedule: dualpipe", "7:17: workload.microbatches", ["2 microbatches", "even number of at least 4"]),
        ("8\n  schedule: dualpipev", "7\n  schedule: interleaved", "7:17: workload.microbatches", ["7 microbatches", "a multiple of the 2"]),
        ("dualpipev", "interleaved\n  chunks: 1", "9:11: workload.chunks", ["1 chunk", "at least 2"]),
        ("dualpipev", "1f1b\n  chunks: 3", "9:11: workload.chunks", ["3 beside 1f1b", "interleaved"]),
        ("dualpipev", "dualpip", "8:13: workload.schedule", ["'dualpip'", "did you mean dualpipe?"]),
        ("dualpipev", "1F1B", "8:13: workload.schedule", ["'1F1B'", "did you mean 1f1b?"]),
        ("{pp: 2, ep: 8}", "{pp: 2, ep: 0}", "4:21: layout.ep", ["got 0"]),
        ("recompute: full", "recompute: ful", "9:14: workload.recompute", ["'ful'", "did you mean full?"]),
        ("recompute: full", "stage_layers: [30, 2]", "9:17: workload.stage_layers", ["[30, 2]", "4 numbers that add up to the 32 layers"]),
        ("recompute: full", "stage_layers: [8, 8, 8, 9]", "9:17: workload.stage_layers", ["[8, 8, 8, 9]"]),
        ("recompute: full", "stage_layers: [8, -1, 8, 9]", "9:21: workload.stage_layers.1", ["-1"]),
        ("recompute: full", "gemm_generation: february_2052", "9:20: workload.gemm_generation", ["'february_2052'", "did you mean february_2025?"]),
        ("recompute: full", "compute: measured", "9:12: workload.compute", ["measured", "a profile"]),
        ("recompute: full", "profile: h800-train-measured", "9:12: workload.profile", ["'compute: measured' beside"]),
        ("recompute: full", "compute: measured\n  profile: h800-train-mesured", "10:12: ", ["'h800-train-mesured'", "did you mean h800-train-measured?"]),
        ("comm_sms: 20", "comm_sms: 132", "10:37: workload.kernel.comm_sms", ["got 132", "fewer than the 132 SMs"]),
        ("comm_sms: 20", "comm_sms: 500", "10:37: workload.kernel.comm_sms", ["got 500", "at most 132"]),
        ("microbatches: 8", "microbatches: 1000000000", "7:17: workload.microbatches", ["131072"]),
        ("microbatches: 8", "global_batch: 1000000000", "7:17: workload.global_batch", ["at most 1048576: 131072 microbatches"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 1 T, pue: 1e300}", "10:27: workload.run.pue", ["100"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 1 T, pue: true}", "10:27: workload.run.pue", ["got True; wanted a valid number"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 1e300}", "10:17: workload.run.tokens", ["at most"]),
        ("routed_load: 0", "routed_load: -5 %", "11:23: workload.skew.routed_load", ["-5 %", "0 to 100 %"]),
        ("routed_load: 0", "routed_load: 5", "11:23: workload.skew.routed_load", ["5"]),
        ("routed_load: 0", "routed_lod: 0", "11:10: workload.skew.routed_lod", ["did you mean routed_load?"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 0}", "10:17: workload.run.tokens", ["got 0", "more than 0"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 14.8 T, price: -2 $/GPU-hour}", "10:32: workload.run.price", ["0 or more"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 14.8 T, price: 2}", "10:32: workload.run.price", ["got 2"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 14.8 T, pue: 0.5}", "10:30: workload.run.pue", ["0.5"]),
        ("recompute: full", "recompute: full\n  run: {price: 2 $/GPU-hour}", "10:", ["the key 'tokens' or the key 'phases'"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 1 T, phases: [{name: a, tokens: 1 T}]}", "10:", ["not both"]),
        ("recompute: full", "recompute: full\n  run: {phases: [{name: a}]}", "10:", ["one of 'tokens', 'steps' and 'gpu_hours'"]),
        ("recompute: full", "recompute: full\n  run: {phases: [{name: a, steps: 0}]}", "10:35: workload.run.phases.0.steps", ["got 0", "more than 0"]),
        ("recompute: full", "recompute: full\n  run: {phases: [{name: a, gpu_hours: 1}]}", "10:17: workload.run.phases", ["at least one phase with"]),
        ("recompute: full", "recompute: full\n  run: {phases: [{name: a, steps: 1}, {name: a, steps: 2}]}", "10:46: workload.run.phases.1.name", ["a name of its own"]),
        ("recompute: full", "recompute: full\n  run: {phases: [{name: a, gpu_hours: 1, schedule: 1f1b}]}", "10:", ["no schedule beside gpu_hours"]),
        ("recompute: full", "recompute: full\n  run: {phases: [{name: a, steps: 1, global_batch: 63}]}", "10:52: workload.run.phases.0.global_batch", ["63", "a multiple of DP8"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 1 T, failures: {mtbf: {}, checkpoint: {write: 1 s}, restart: 1 s}}", "10:", ["no part that fails", "gpu, node, nic"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 1 T, failures: {mtbf: {gpu: 0 h}, checkpoint: {write: 1 s}, restart: 1 s}}", "10:45: workload.run.failures.mtbf.gpu", ["more than 0"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 1 T, failures: {mtbf: {gpu: 1 h}, checkpoint: {write: 1 s}, restart: 1 s, stragglers: {mtbf: 1 h, speed: 0 %, detect: 1 h, swap: 1 s}}}", "10:122: workload.run.failures.stragglers.speed", ["to 100 %"]),
        ("recompute: full", "recompute: full\n  run: {tokens: 1 T, failures: {mtbf: {gpu: 1 h}, checkpoint: {write: 0 s}, restart: 1 s}}", "10:71: workload.run.failures.checkpoint.write", ["more than 0 s, or 'every'"]),
        ("microbatches: 8", "microbatches: 8\n  micro_batch_size: 2", "8:3: workload.micro_batch_size", ["unknown key", "did you mean microbatch_sequences?"]),
        ("{pp: 2, ep: 8}", "{pp: 2, ep: 8, vpp: 2}", "4:24: layout.vpp", ["unknown key", "did you mean workload.chunks?"]),
        ("recompute: full", "zero: 1", "9:3: workload.zero", ["did you mean workload.optimizer.shard?"]),
        ("recompute: full", "recompute: moe_act", "9:14: workload.recompute", ["or a list of modules"]),
        ("{kind: two_hop, comm_sms: 20}", "deepep", "10:11: workload.kernel", ["'deepep'", "a mapping with the key 'kind'", "{kind: two_hop}?"]),
        ("two_hop, comm_sms: 20", "deepep", "10:18: workload.kernel.kind", ["'deepep'", "did you mean two_hop?"]),
        ("name: mine", "name: mine\nfidelity: closed_form", "2:11: fidelity", ["'flow' for training"]),
        ("model: mixtral-8x7b\n", "", "1:1: ", ["no model"]),
        ("  microbatches: 8\n", "", "6:3: workload", ["the key 'microbatches', or 'global_batch'"]),
        ("microbatches: 8", "global_batch: 63", "7:17: workload.global_batch", ["63", "a multiple of DP8 x 1 sequences a microbatch = 8"]),
        ("microbatches: 8", "microbatches: 8\n  global_batch: 32", "7:17: workload.microbatches", ["8", "4, what global_batch: 32 makes"]),
    ],
)  # fmt: skip
def test_a_problem_says_where_got_wanted_and_nearest(
    old: str, new: str, place: str, words: list[str]
) -> None:
    problems = told(spoilt((old, new)))
    hit = [problem for problem in problems if problem.startswith(f"mine.yaml:{place}")]
    assert hit, problems
    for word in words:
        assert word in hit[0], problems


def test_all_problems_are_told_together() -> None:
    problems = told(
        spoilt(
            ("microbatches: 8", "microbatches: 3"),
            ("recompute: full", "gemm_generation: nope"),
            ("comm_sms: 20", "comm_sms: 132"),
            ("gpu_spread: 0", "gpu_spread: -1 %"),
        )
    )
    assert len(problems) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([("{pp: 2, ep: 8}", "{pp: 3, ep: 8}")], ["PP3", "16"]),
        ([("{pp: 2, ep: 8}", "{pp: 2, ep: 8, dp: 3}")], ["DP3", "16"]),
        ([("{pp: 2, ep: 8}", "{pp: 2, ep: 16}")], ["EP16", "8 ranks"]),
        ([("{pp: 2, ep: 8}", "{pp: 1, ep: 16}")], ["EP16", "8 experts"]),
        ([("{pp: 2, ep: 8}", "{pp: 2, tp: 8, ep: 8, cp: 2}")], ["16"]),
        ([("{pp: 2, ep: 8}", "{pp: 2, ep: 8, cp: 8}"), ("microbatches: 8", "microbatches: 8\n  sequence_tokens: 100")], ["CP8", "100 tokens"]),
        ([("nodes: 2", "nodes: 64"), ("{pp: 2, ep: 8}", "{pp: 64}"), ("dualpipev", "1f1b")], ["64 pipeline stages", "32 layers"]),
        ([("nodes: 2", "nodes: 8"), ("{pp: 2, ep: 8}", "{pp: 32}"), ("microbatches: 8", "microbatches: 64")], ["64 pipeline stages", "32 layers"]),
        ([("recompute: full", "recompute: none"), ("microbatches: 8", "microbatches: 8\n  sequence_tokens: 65536")], ["pipeline rank 0 needs", "of the 80 GB", "activations", "ranks do not fit"]),
        ([("{pp: 2, ep: 8}", "{pp: 2, ep: 1}")], ["gradients", "weights", "optimizer", "2 of 2 ranks"]),
    ],
)  # fmt: skip
def test_what_no_machine_can_run_says_why(changes: list[tuple[str, str]], words: list[str]) -> None:
    with pytest.raises(InfeasibleError) as caught:
        run_document(documents.loads(spoilt(*changes), "mine.yaml"))
    assert caught.value.exit_code == 3
    for word in words:
        assert word in str(caught.value)


def test_a_memory_overflow_leaves_the_command_with_3_and_writes_nothing(tmp_path: Path) -> None:
    file, out = tmp_path / "mine.yaml", tmp_path / "out"
    file.write_text(spoilt(("{pp: 2, ep: 8}", "{pp: 2, ep: 1}")))
    command = [sys.executable, "-m", "sim", "run", str(file), "--out", str(out)]
    root = Path(sim.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 3, done.stderr
    assert "gradients 93" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("result.json"))


def test_a_run_without_a_price_takes_the_profiles_or_has_no_cost() -> None:
    text = GOOD + "  run: {tokens: 1 T}\n"
    priced = run_document(documents.loads(text.replace("h100", "h800"), "mine.yaml"))["metrics"]
    assert priced["run_cost_usd"] == pytest.approx(2 * priced["run_gpu_hours"])
    unpriced = text.replace("nodes: 2", "nodes: 2, override: {cost: null}")
    without = run_document(documents.loads(unpriced, "mine.yaml"))["metrics"]
    assert without["run_gpu_hours"] > 0
    assert without["run_energy_kwh"] > 0
    assert "run_cost_usd" not in without


# --- anything at all ----------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, -1, 0, 1, 2, 3, 7, 10**9, 1.5, float("inf"), "", "x", "1f1b", "dualpipe", "interleaved", "zb2p", "5 %",
    "400 GB/s", "3 us", [], [1], [16, 16], [0, 32], {}, {"kind": "flat"}, {"kind": "nccl"}, {"kind": "low_latency"},
    "fp8", "bf16", "full", "none", "measured", "h800-train-measured", "february_2025", "deepseek-v3", "gb200-nvl72", "a800",
]  # fmt: skip


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    for key, value in tree.items() if isinstance(tree, dict) else ():
        found += places(value, (*at, key))
    return found


EXTRA = {
    "layout": {"tp": 1, "cp": 1, "dp": 8},
    "workload": {
        "chunks": None, "stage_layers": None, "overlap": True, "precision": "bf16", "compute": "modelled", "profile": None,
        "gemm_generation": "march_2025", "microbatch_sequences": 1, "sequence_tokens": 512, "gate": {"kind": "uniform"},
        "run": {"tokens": "1 T", "price": "2 $/GPU-hour", "pue": 1.1},
    },
}  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_no_spoilt_scenario_ends_in_a_traceback(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        tree = yaml.safe_load(GOOD)
        for branch, more in EXTRA.items():
            for key, value in more.items():
                if rng.random() < 0.3 and value is not None:
                    tree[branch][key] = value
        for _ in range(rng.choice((1, 1, 2))):
            *branch, key = rng.choice(places(tree) + [("workload", name) for name in EXTRA["workload"]])
            node = tree
            for step in branch:
                node = node[step] if isinstance(node, dict) and step in node else {}
            if isinstance(node, dict):
                value = copy.deepcopy(rng.choice(VALUES))
                if key in ("microbatches", "nodes") and value == 10**9:
                    value = 64  # good input, and longer than a test should be
                node[key] = value
        text = yaml.safe_dump(tree)
        run = rng.random() < 0.3
        try:
            document = documents.loads(text, "mine.yaml")
            run_document(document) if run else resolve(document)
        except InputError as caught:
            said = [problem.wanted for problem in caught.problems]
        except MoesimError as caught:
            said = [str(caught)]
        except Exception as caught:
            raise AssertionError(text) from caught
        else:
            said = ["good"]
        assert said, text
        assert all(said), text
