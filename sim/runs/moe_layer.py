"""One MoE layer of a training step by itself: its all-to-alls, and the layer with and without overlap.

A layer is the forward of one microbatch and the backward of another: two dispatch kernels, two combine kernels and all
compute between them. Four layers run in a row, as in a chunk of DeepSeek-V3, and metrics are of the mean layer; every rank
is taken to be alike. The step itself is simulated apart from this; these times say why it is as long as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim.schedule import programs
from sim.schedule.alignment import aligned
from sim.schedule.programs import LayerTimes
from sim.schedule.training import StageTimes

_LAYERS = 4  # in a row
_EACH = 2  # all-to-alls of a kind in a layer: of its forward and of its backward


def layer_metrics(
    stages: Sequence[StageTimes], collective_s: Callable[[str, bool], float], *, overlap: bool
) -> dict[str, float]:
    """Times of one MoE layer of the step (of a dense layer where the model has no other).

    `collective_s` is the mean time of `dispatch` or `combine`, alone or (True) next to compute.

    `layer_comm_alone_s`: the four all-to-alls, each alone on idle links. `layer_time_s`: the layer as the step
    runs it in its pairs. `layer_time_exposed_s`: the same kernels on the same SMs, and every all-to-all waited
    for. `layer_time_serial_s`: every all-to-all waited for, compute on all SMs meanwhile: what a step without
    overlap runs.
    """
    alone, overlapped = _layer(stages)
    names = (programs.DISPATCH, programs.COMBINE) if alone.communicates else ()
    idle = {name: collective_s(name, False) for name in names}
    chunk = (overlapped,) * _LAYERS
    serial_s = _in_a_row((alone,) * _LAYERS, idle)
    pair = aligned(chunk, chunk, lambda name: collective_s(name, True))
    loaded = {name: collective_s(name, True) for name in names}
    return {
        "layer_comm_alone_s": _EACH * sum(idle.values()),
        "layer_time_s": programs.span_s(pair, loaded) / _LAYERS if overlap else serial_s,
        "layer_time_exposed_s": _in_a_row(chunk, idle) if overlap else serial_s,
        "layer_time_serial_s": serial_s,
    }


def _layer(stages: Sequence[StageTimes]) -> tuple[LayerTimes, LayerTimes]:
    """The first layer with all-to-alls, with all SMs and next to communication; the first layer where none has any."""
    blocks = [pair for stage in stages for pair in zip(stage.alone, stage.beside, strict=True)]
    layers = [pair for pair in blocks if pair[0].layer >= 0]
    return next((pair for pair in layers if pair[0].communicates), layers[0])


def _in_a_row(chunk: tuple[LayerTimes, ...], collective_s: dict[str, float]) -> float:
    """A layer of the chunk's forward and then its backward, one thing at a time [s]."""
    whole = programs.one_after_another(programs.forward(chunk), programs.backward(chunk))
    return programs.span_s(programs.serial(whole), collective_s) / len(chunk)
