"""Every key of a serving scenario's `engine`, from YAML to the passes that it changes: a law by hand for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from one_pool import ONE_POOL
from sim import files
from sim.cluster.hardware import load_hardware
from sim.engine.serving import serve
from sim.engine.serving_lives import ServingTrace
from sim.errors import InputError
from sim.runs.service import service_of
from sim.runs.serving_metrics import measure
from sim.scenario import settings
from sim.scenario.descriptions import Scenario
from sim.scenario.resolve import resolve
from sim.scenario.serving import Serving
from sim.schedule.serving import Service
from sim.workload.requests import Requests, totals

EIGHT_GPUS = f"{ONE_POOL}  arrivals: {{kind: trace, file: requests.csv}}\n"
ONE_GROUP = EIGHT_GPUS.replace("ep: 8", "layout: {tp: 8, dp: 1, ep: 8}")
"""One rank, a tensor-parallel group of eight GPUs."""
NODE = 8
Row = tuple[float, int, int]


class Served(NamedTuple):
    """A run with its deployment."""

    service: Service
    trace: ServingTrace
    asked: Requests

    @property
    def hit_fraction(self) -> float:
        return float(measure(self.service, self.asked, self.trace, NODE)["cache_hit_fraction"])

    @property
    def prefilled_tokens(self) -> int:
        return sum(int(one.prompt_tokens.sum()) for one in self.trace.prefill)

    @property
    def steps_of_requests(self) -> int:
        return sum(int(one.requests.sum()) for one in self.trace.decode)


def read(folder: Path, rows: Sequence[Row], chosen: Sequence[str], text: str = EIGHT_GPUS) -> Scenario:
    """Write a scenario and its requests, and read them with `--set` settings."""
    lines = ["arrival_s,prompt_tokens,output_tokens", *(",".join(map(str, row)) for row in rows)]
    (folder / "requests.csv").write_text("\n".join(lines) + "\n")
    file = folder / "decisions.yaml"
    file.write_text(text)
    return resolve(settings.read(file, chosen))


@cache
def costed(text: str, folder: Path) -> Service:
    """Simulated passes, which no decision below changes: they are shared."""
    return service_of(read(folder, [(0.0, 1000, 100)], ["workload.decode.requests_per_gpu=64"], text), print)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decisions")


def run(folder: Path, rows: Sequence[Row], *chosen: str, text: str = EIGHT_GPUS) -> Served:
    """Serve rows of arrival [s], prompt and answer [tokens]; `chosen` are keys of the workload."""
    scenario = read(folder, rows, [f"workload.{key}" for key in chosen], text)
    assert isinstance(scenario.workload, Serving)
    costs = costed(text, folder)
    own = service_of(scenario, print)
    service = replace(own, prefill_s=costs.prefill_s, decode_step_s=costs.decode_step_s)
    asked = scenario.workload.requests
    return Served(service, serve(service, asked), asked)


def most_inside(came: np.ndarray, left: np.ndarray) -> int:
    """Most requests between two of their instants at once; who leaves goes before who comes."""
    events = sorted([(t, 1) for t in came.tolist()] + [(t, -1) for t in left.tolist()])
    return int(np.cumsum([change for _, change in events]).max())


# --- passes ----------------------------------------------------------------------------------------------------------


def test_a_prompt_goes_in_chunks_of_chunk_tokens_or_else_of_batch_tokens(shared: Path) -> None:
    rows = [(0.0, 1000, 1)]
    chunked = run(shared, rows, "engine.chunk_tokens=256").trace.prefill[0]
    assert chunked.prompt_tokens.tolist() == [256, 256, 256, 232]
    assert run(shared, rows).trace.prefill[0].prompt_tokens.tolist() == [1000]
    assert run(shared, [(0.0, 5000, 1)]).trace.prefill[0].prompt_tokens.tolist() == [4096, 904]


def test_mixed_passes_give_tokens_next_to_prompts_and_others_never(shared: Path) -> None:
    """Nine prompts: the ninth comes on the GPU of the first and leaves a token of its chunk to the one that runs there."""
    rows = [(0.0, 100, 60)] * NODE + [(0.02, 1000, 2)]
    apart = run(shared, rows, "engine.chunk_tokens=256").trace.prefill[0]
    mixed = run(shared, rows, "engine.chunk_tokens=256", "engine.mixed=true").trace.prefill[0]
    assert not (apart.prefills & apart.steps).any()
    assert (apart.prefills[1:]).sum() == 4
    both = mixed.prefills & mixed.steps
    assert mixed.prompt_tokens[both].tolist() == [255, 255, 255, 235]
    assert mixed.requests[both].tolist() == [NODE] * 4
    assert len(apart.start_s) - len(mixed.start_s) == 4  # passes that gave nobody a token


# --- requests and memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2])
def test_a_gpu_never_has_more_than_max_requests_per_gpu(shared: Path, most: int) -> None:
    """24 requests come at once to eight GPUs."""
    served = run(shared, [(0.0, 200, 20)] * 24, f"engine.max_requests_per_gpu={most}")
    at = served.trace.instants
    assert most_inside(at["prefill_start_s"], at["end_s"]) == NODE * most
    assert served.trace.decode[0].requests.max() == NODE * most


@pytest.mark.parametrize(("block", "held"), [(1, 140), (64, 192), (100, 200)])
def test_kv_is_held_in_blocks_of_block_tokens(shared: Path, block: int, held: int) -> None:
    served = run(shared, [(0.0, 100, 40)], f"engine.block_tokens={block}")
    assert served.trace.decode[0].peak_kv_tokens == held
    assert served.service.rank_capacity_tokens(served.service.prefill) % block == 0


def test_memory_fraction_is_the_part_of_hbm_that_both_pools_may_use(shared: Path) -> None:
    """From 50 % to 90 % each GPU has 40 % of its HBM more for KV, whatever else it holds."""
    apart = ("decode.instances=1", "decode.requests_per_gpu=16")
    half, most = (
        service_of(
            read(
                shared,
                [(0.0, 1000, 100)],
                [
                    "cluster.nodes=2",
                    *(f"workload.{key}" for key in (*apart, f"engine.memory_fraction={part}")),
                ],
            ),
            print,
        )
        for part in ("50 %", "90 %")
    )
    more = 0.4 * NODE * load_hardware("h100").gpu.hbm.capacity_bytes
    assert half.decode is not None
    assert most.decode is not None
    assert most.prefill.kv_capacity_bytes - half.prefill.kv_capacity_bytes == pytest.approx(more)
    assert most.decode.kv_capacity_bytes - half.decode.kv_capacity_bytes == pytest.approx(more)


PROMPT, ANSWER = 1500, 600
FULL_HOUSE = [(0.0, PROMPT, ANSWER)] * (2 * NODE)
LITTLE = "engine.memory_fraction=7.7 %"  # room for two prompts on a GPU, and not for both answers


@pytest.mark.parametrize("preemption", ["none", "recompute", "swap"])
def test_a_full_gpu_waits_or_computes_again_or_swaps_and_no_token_is_lost(
    shared: Path, preemption: str
) -> None:
    """Two requests a GPU. Reserved, one runs; grown, the second is put out when both fill the GPU: each then holds half."""
    served = run(
        shared,
        FULL_HOUSE,
        LITTLE,
        f"engine.preemption={preemption}",
        "engine.block_tokens=1",
        "engine.max_requests_per_gpu=2",
    )
    trace, room = served.trace, served.service.rank_capacity_tokens(served.service.prefill)
    assert 2 * (PROMPT + 1) < room < 2 * (PROMPT + ANSWER)
    assert not np.isnan(trace.instants["end_s"]).any()
    assert served.steps_of_requests == 2 * NODE * (ANSWER - 1)  # every token once; prefill gives the first
    assert trace.decode[0].peak_kv_tokens <= NODE * room
    assert trace.preemptions == (0 if preemption == "none" else NODE)
    again = served.prefilled_tokens - 2 * NODE * PROMPT
    assert again == pytest.approx(NODE * room / 2, abs=2 * NODE) if preemption == "recompute" else again == 0
    started = trace.instants["prefill_start_s"]
    assert most_inside(started, trace.instants["end_s"]) == (NODE if preemption == "none" else 2 * NODE)


def test_what_is_swapped_waits_for_pcie_both_ways(shared: Path) -> None:
    """Each GPU moves half of its KV out and in: two passes wait for it."""
    chosen = (LITTLE, "engine.preemption=swap", "engine.block_tokens=1", "engine.max_requests_per_gpu=2")
    served = run(shared, FULL_HOUSE, *chosen)
    free = serve(
        replace(served.service, engine=replace(served.service.engine, swap_bytes_per_s=float("inf"))),
        served.asked,
    )
    pcie = load_hardware("h100").gpu.pcie
    assert pcie is not None
    half = served.service.rank_capacity_tokens(served.service.prefill) / 2 * served.service.kv_bytes_per_token
    assert served.trace.end_s - free.end_s == pytest.approx(2 * half / pcie.bandwidth_bytes_per_s, rel=0.01)


# --- prefix cache --------------------------------------------------------------------------------------------------


def conversations(folder: Path, capacity: str) -> Served:
    trace = files.data_folder("scenarios") / "serving-mooncake.jsonl"
    return run(
        folder, [], f"arrivals.file={trace}", f"engine.prefix_cache={{capacity: {capacity}}}", text=ONE_GROUP
    )


def test_a_cache_with_room_for_all_finds_what_the_trace_repeats(shared: Path) -> None:
    """388 blocks of 512 tokens are 39 GB of the 160; one rank, and nobody comes before the turn before is prefilled."""
    served = conversations(shared, "20 GB")
    reusable = totals(served.asked)["reusable_fraction"]
    assert reusable == pytest.approx(0.658, abs=5e-4)
    assert served.hit_fraction == reusable
    assert served.prefilled_tokens == round((1 - reusable) * served.asked.prompt_tokens.sum())
    little = conversations(shared, "200 MB")
    assert little.service.engine.prefix_blocks == 15  # of eight GPUs: 1.6 GB / (512 x 196,608 B)
    assert 0 < little.hit_fraction < 0.5 * reusable


# --- routing ---------------------------------------------------------------------------------------------------------

TWO_GROUPS = ONE_GROUP.replace("nodes: 1", "nodes: 2").replace("prefill:\n", "prefill:\n    instances: 2\n")
"""Two instances of one rank each."""


def waits_beside_an_idle_rank(served: Served) -> int:
    """Count requests that wait although, when they come, everybody who came to the other of two ranks has gone."""
    at, own = served.trace.instants, served.trace.prefill_instance
    waited = at["prefill_start_s"] > at["arrival_s"]
    return sum(
        bool((at["end_s"][:i][own[:i] != own[i]] <= at["arrival_s"][i]).all())
        for i in np.flatnonzero(waited).tolist()
    )


def test_nobody_routed_to_the_shortest_queue_waits_beside_an_idle_rank(shared: Path) -> None:
    """Every other prompt is long: in turn these all go to one rank, and wait for each other there."""
    rows = [(0.06 * i, 30_000 if i % 2 == 0 else 100, 1) for i in range(20)]
    found = {
        routing: run(shared, rows, f"engine.routing={routing}", text=TWO_GROUPS)
        for routing in ("round_robin", "shortest_queue")
    }
    assert found["round_robin"].trace.prefill_instance.tolist() == [0, 1] * 10
    assert waits_beside_an_idle_rank(found["round_robin"]) > 5
    assert waits_beside_an_idle_rank(found["shortest_queue"]) == 0


@pytest.mark.parametrize(
    ("routing", "instances", "cached"),
    [
        ("round_robin", [0, 1, 0, 1], [0, 0, 0, 0]),
        ("shortest_queue", [0, 1, 0, 0], [0, 0, 0, 1024]),
        ("cache_aware", [0, 1, 1, 0], [0, 0, 1024, 1024]),
    ],
)
def test_an_aware_router_alone_finds_what_both_conversations_left(
    shared: Path, routing: str, instances: list[int], cached: list[int]
) -> None:
    """Two conversations begin together; the second goes on first, when both ranks are idle."""
    rows = [(0, [0, 1]), (0, [10, 11]), (9000, [10, 11, 12]), (19000, [0, 1, 2])]
    trace = shared / "turns.jsonl"
    trace.write_text(
        "".join(
            json.dumps({"timestamp": ms, "input_length": 512 * len(ids), "output_length": 2, "hash_ids": ids})
            + "\n"
            for ms, ids in rows
        )
    )
    chosen = (f"arrivals.file={trace}", "engine.prefix_cache={capacity: 1 GB}", f"engine.routing={routing}")
    found = run(shared, [], *chosen, text=TWO_GROUPS).trace
    assert found.prefill_instance.tolist() == instances
    assert found.cached_tokens.tolist() == cached


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instances", [0, 1])
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (
            "decode.plan.kv_dtype=fp8",
            "decode.plan.kv_dtype: got KV in 'fp8'; wanted 'bf16', that of the prefill plan",
        ),
        ("prefill.plan.kv_dtype=fp8", "decode.plan.kv_dtype: got KV in 'bf16'; wanted 'fp8'"),
        ("decode.plan.precision={attention: fp8}", "decode.plan.precision: got KV in 'fp8'; wanted 'bf16'"),
    ],
)
def test_kv_that_prefill_writes_in_another_format_than_decode_reads_is_refused(
    shared: Path, instances: int, setting: str, told: str
) -> None:
    keys = ["cluster.nodes=2", f"workload.decode.instances={instances}", f"workload.{setting}"]
    with pytest.raises(InputError) as caught:
        read(shared, [(0.0, 100, 10)], keys)
    assert told in str(caught.value)


def test_a_cache_in_fp8_holds_twice_the_tokens(shared: Path) -> None:
    fp8 = run(shared, [(0.0, 100, 2)], "decode.plan.kv_dtype=fp8", "prefill.plan.kv_dtype=fp8").service
    bf16 = run(shared, [(0.0, 100, 2)]).service
    assert bf16.kv_bytes_per_token == 2 * fp8.kv_bytes_per_token
