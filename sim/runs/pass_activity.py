"""Activity of the mean GPU in a forward pass."""

from __future__ import annotations

from collections.abc import Mapping

from sim.cost.power import Activity
from sim.cost.work import Part, dense_peaks
from sim.runs import pass_pipeline
from sim.runs.energy import network_bytes
from sim.runs.passes import ForwardPass, PassRecord
from sim.schedule import inference as plans

_HELD = tuple(f"{name} {end}" for name in plans.COLLECTIVES for end in ("send", "receive"))


def classes(part: Part, peak_flops: Mapping[str, float], hbm_bytes_per_s: float) -> dict[str, float]:
    """Time of a part's launches by what holds the GPU: `tensor_s`, `memory_s` and `communication_s`.

    A launch is memory's where its bytes take longer at full rates than its FLOPs, and communication's where it
    has neither.
    """
    spent = dict.fromkeys(("tensor_s", "memory_s", "communication_s"), 0.0)
    for work in part.values():
        multiplies_s = work.flops / peak_flops[work.dtype] if work.flops else 0.0
        moves_s = work.moved_bytes / hbm_bytes_per_s
        neither = not work.flops and not work.moved_bytes
        held = "communication_s" if neither else "tensor_s" if multiplies_s > moves_s else "memory_s"
        spent[held] += work.time_s
    return spent


def pass_activity(
    forward: ForwardPass, record: PassRecord, spent: Mapping[str, float], ends: Mapping[str, Part]
) -> Activity:
    """Activity of the mean GPU of a pass that ran; bytes are those of the whole deployment.

    `spent` has the time of each part of the compute stream on the mean rank, with `waits`, `last_rank` and
    `ends` [s].
    """
    plan, gpu = forward.plan, forward.plan.hardware.gpu
    peaks, rate = dense_peaks(gpu), gpu.hbm.bandwidth_bytes_per_s
    held = {"tensor_s": 0.0, "memory_s": 0.0, "communication_s": spent["waits"]}
    for name, time_s in spent.items():
        if name in _HELD:
            held["communication_s"] += time_s
        elif name in forward.needs.parts:
            by_class = classes(forward.needs.parts[name], peaks, rate)
            whole = sum(by_class.values())
            for key, part_s in by_class.items():
                held[key] += time_s * part_s / whole if whole else 0.0
    for part in ends.values():
        for key, part_s in classes(part, peaks, rate).items():
            held[key] += part_s
    return Activity(
        elapsed_s=pass_pipeline.step_s(forward, record),
        **held,
        **network_bytes(forward.collectives.cluster, record.ran.bytes * plan.in_flight / plan.layout.pp),
    )
