"""Stages as Megatron-LM writes them: what a layout holds, what is refused, and that a step runs on it."""

from __future__ import annotations

import pytest

from sim import documents
from sim.errors import InputError
from sim.runs.run import run_document
from sim.workload.model import load_model, parameters
from sim.workload.stage_layouts import StageBlocks, read_stage_layout
from sim.workload.stages import stage_parameters, stages

V3 = load_model("deepseek-v3")


def test_the_layout_of_v3_on_32_stages_is_written_out() -> None:
    found = read_stage_layout("Et|(tt|)*30mL", 32, 61, 1)
    assert found == (StageBlocks(1, 0), *[StageBlocks(2, 0)] * 30, StageBlocks(0, 1))
    published = read_stage_layout("Et*3|(tt|)*29m|L", 32, 61, 1)  # Megatron-LM's for DeepSeek-V3
    assert published == (StageBlocks(3, 0), *[StageBlocks(2, 0)] * 29, StageBlocks(0, 1), StageBlocks(0, 0))
    nested = read_stage_layout("Ett | ( (t)*2 | )*2 t m L", 4, 7, 1)
    assert [blocks.num_layers for blocks in nested] == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Et|(tt|)*29mL", "32 stages, 61 t, 1 m"),
        ("Et|(tt|)*30L", "32 stages, 61 t, 1 m"),
        ("|Et|(tt|)*29ttmL", "E in the first"),
        ("t|(tt|)*30mEL", "one E, then every t"),
        ("Et|*30(tt|mL", r"a \) after each \("),
        ("Et|(tt|mL", r"a \) after each \("),
        ("Et|tt)mL", r"a \( before each \)"),
        ("Et|(tt|)*999999999mL", "at most 100,000 blocks"),
        ("Ex|tL", "not 'x'"),
    ],
)
def test_what_is_no_layout_of_the_model_is_refused(text: str, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        read_stage_layout(text, 32, 61, 1)


def test_stages_hold_what_the_layout_says_and_all_of_the_model() -> None:
    cut = stages(V3, 32, layout="Et|(tt|)*30mL")
    assert [str(stage) for stage in (cut[0], cut[1], cut[2], cut[-1])] == [
        "embedding + 1 dense", "2 dense", "2 MoE", "head + 1 MTP",
    ]  # fmt: skip
    count = [stage_parameters(V3, stage) for stage in cut]
    total = sum(c.experts + c.layers + c.embedding + c.head for c in count)
    assert total == parameters(V3).total + parameters(V3).mtp


def test_a_module_before_the_last_stage_goes_through_the_head_of_the_last_one() -> None:
    apart, together = (stages(V3, 33, layout=text) for text in ("Et|(tt|)*30m|L", "Et|(tt|)*30|mL"))
    assert [stage.num_head_passes for stage in apart[-2:]] == [0, 2]
    assert [stage.num_head_passes for stage in together[-2:]] == [0, 2]
    assert [stage.num_mtp for stage in apart[-2:]] == [1, 0]


SCENARIO = """\
name: mine
cluster: {{hardware: h100, nodes: 4, override: {{gpu.hbm.capacity: 1 TB}}}}
model: mixtral-8x7b
layout: {{pp: 4, ep: 8}}
workload:
  kind: training
  microbatches: 8
  schedule: interleaved
  kernel: {{kind: two_hop}}
  skew: {{routed_load: 0, kernel_jitter: 0, gpu_spread: 0}}
  {stages}
"""


def test_a_step_on_a_layout_is_the_step_on_the_same_numbers_of_layers() -> None:
    results = [
        run_document(documents.loads(SCENARIO.format(stages=text), "mine.yaml"))
        for text in ('stages: "E(tttt|)*7ttttL"', "stage_layers: [4, 4, 4, 4, 4, 4, 4, 4]")
    ]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["stages"][0] == "embedding + 4 MoE"


def test_a_wrong_layout_is_told_at_its_place_in_the_file() -> None:
    text = SCENARIO.format(stages='stages: "E(tttt|)*6ttttL"')
    with pytest.raises(InputError, match=r"11:11: workload.stages.*7 stages, 28 t.*8 stages, 32 t"):
        run_document(documents.loads(text, "mine.yaml"))
    both = SCENARIO.format(stages='stages: "E(tttt|)*7ttttL"\n  stage_layers: [4, 4, 4, 4, 4, 4, 4, 4]')
    with pytest.raises(InputError, match="no stages beside stage_layers"):
        run_document(documents.loads(both, "mine.yaml"))
