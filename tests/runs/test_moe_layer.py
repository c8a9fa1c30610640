"""What a training step says of one MoE layer: its exchanges alone, and the layer with and without overlap."""

from __future__ import annotations

from typing import Any

import pytest

from sim import documents
from sim.runs.run import run_document

STEP = """\
name: small
cluster: {hardware: h800, nodes: 4}
model: mixtral-8x7b
layout: {pp: 2, ep: 8}
workload:
  kind: training
  microbatches: 8
  schedule: dualpipev
  recompute: full
  overlap: OVERLAP
  kernel: {kind: two_hop, comm_sms: 20}
  skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}
"""
LAYER = ("layer_time_s", "layer_time_exposed_s", "layer_time_serial_s")


def step(overlap: bool = True, **changes: Any) -> dict[str, Any]:
    document = documents.loads(STEP.replace("OVERLAP", str(overlap).lower()), "small.yaml")
    for key, value in changes.items():
        document.put(documents.split(key.replace("__", ".")), value, documents.Mark("test"))
    return run_document(document)


@pytest.fixture(scope="module")
def overlapped() -> dict[str, Any]:
    return step()


def test_exchanges_of_a_layer_are_two_dispatches_and_two_combines(overlapped: dict[str, Any]) -> None:
    alone = {name: one["alone_s"] for name, one in overlapped["exchanges"].items()}
    assert overlapped["metrics"]["layer_comm_alone_s"] == pytest.approx(
        2 * (alone["dispatch"] + alone["combine"])
    )


def test_overlap_hides_no_more_than_the_exchanges_and_lent_sms_slow_compute(
    overlapped: dict[str, Any],
) -> None:
    hidden, exposed, serial = (overlapped["metrics"][key] for key in LAYER)
    again = overlapped["exchanges"]["dispatch"][
        "alone_s"
    ]  # whole layers are computed again, with their dispatch
    comm = overlapped["metrics"]["layer_comm_alone_s"] + again
    assert 0 < exposed - hidden <= comm * (1 + 1e-9)
    # Compute takes at most as much longer as SMs are fewer, and a little for the HBM that exchanges take.
    assert 1.0 < (exposed - comm) / (serial - comm) < 132 / 112 * 1.05


def test_without_overlap_a_layer_takes_its_compute_and_its_exchanges() -> None:
    metrics = step(overlap=False)["metrics"]
    assert metrics["layer_time_s"] == metrics["layer_time_serial_s"] == metrics["layer_time_exposed_s"]


def test_the_serial_layer_is_the_same_with_and_without_overlap(overlapped: dict[str, Any]) -> None:
    assert (
        step(overlap=False)["metrics"]["layer_time_serial_s"] == overlapped["metrics"]["layer_time_serial_s"]
    )


def test_a_layer_without_expert_parallelism_exchanges_nothing() -> None:
    metrics = step(layout__ep=1, cluster__override={"gpu.hbm.capacity": "640 GB"})["metrics"]
    assert metrics["layer_comm_alone_s"] == 0
    assert metrics["layer_time_s"] > 0
