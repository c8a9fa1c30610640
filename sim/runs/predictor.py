"""Time of a forward pass for simulators of serving: seconds of a batch, at microseconds a call.

Passes are simulated at a few loads and contexts when a deployment is first asked about, and straight lines lie between. A step of
one token a request is read from the surface that serving uses (`step_surface`). A pass with more new tokens is read from
passes of prompts by two numbers of its busiest GPU: new tokens, and the mean tokens that each of them attends to. Batches that
agree in both do the same GEMMs, move the same bytes and score the same pairs.

Why the mean pairs: attention of a request of n new tokens behind c cached ones scores n (c + n / 2) pairs, of a batch their sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sim.cluster.hardware import load_hardware
from sim.cost.surfaces import line
from sim.documents import Document
from sim.runs import step_surface
from sim.runs.inference import batch_of
from sim.runs.run import run_scenario
from sim.scenario import resolve as scenarios
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference

_CONTEXT = 4096  # mean tokens of a request, around which steps of one token are simulated
_NEW = (2, 32, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)  # new tokens of a GPU
_CACHED = (0, 4096, 32768, 131072)  # tokens before a prompt's
_PARTS = 8  # prompts instead of one, whose tokens attend to fewer
_COMM_SMS = 24


def pass_time(
    model: str,
    hardware: str,
    layout: Mapping[str, int] | Any,
    new_tokens: int,
    contexts: Sequence[int],
) -> float:
    """Predict the time of one forward pass of a deployment.

    Parameters
    ----------
    model, hardware : str
        Shipped ones, or paths of files.
    layout : mapping or Layout
        Sizes of the groups, `{"ep": 16}` or `{"tp": 2, "ep": 8}`; the deployment has as many GPUs as they need.
    new_tokens : int [count]
        Tokens of each request that the pass computes: 1 in a step of decoding, a chunk in a prefill.
    contexts : sequence of int, [num_requests]
        Tokens of each request of the whole deployment that are in the cache already.

    Returns
    -------
    float [s]
        From the embedding to the last sampled token, without a host; routing is even, and nothing overlaps.

    Raises
    ------
    InputError
        For an unknown model, machine or layout.
    InfeasibleError
        Where the weights do not fit.
    ValueError
        Without a request, or for a negative number of tokens.

    Notes
    -----
    The first call of a deployment simulates some fifty passes. Memory of the requests is not checked. Steps of one token are within
    3 % of the simulated one, other passes mostly; a tenth is lost where the last wave of a GEMM's tiles is nearly empty.

    Examples
    --------
    >>> step_s = pass_time("qwen3-30b-a3b", "h800", {"ep": 2}, 1, [4096] * 16)
    >>> prefill_s = pass_time("qwen3-30b-a3b", "h800", {"ep": 2}, 2048, [0, 0])
    """
    num = len(contexts)
    if not num or new_tokens < 1 or min(contexts) < 0:
        raise ValueError("pass_time wants a request or more, a new token or more, and no negative context")
    sizes = layout if isinstance(layout, Mapping) else layout.model_dump(exclude_none=True)
    key = (
        model,
        hardware,
        tuple(sorted((name, int(size)) for name, size in sizes.items() if name != "order")),
    )
    total = sum(contexts)
    if new_tokens == 1:
        ranks, step_s = _steps(*key)
        return step_s(num / ranks, max(1.0, total / num))
    ranks, rows = _prefills(*key)
    busiest = math.ceil(num / ranks) * new_tokens
    return rows(busiest, total / num + new_tokens / 2)


def _scenario(model: str, hardware: str, sizes: tuple[tuple[str, int], ...], **workload: Any) -> Scenario:
    layout = dict(sizes)
    ranks = layout.get("pp", 1) * max(layout.get("ep", 1), layout.get("tp", 1) * layout.get("dp", 1))
    per_node = int(load_hardware(hardware).gpu.scale_up.domain)
    nodes = math.ceil(ranks / per_node)
    part = {"gpus": ranks} if ranks < nodes * per_node else {}
    tree = {
        "name": "pass",
        "cluster": {"hardware": hardware, "nodes": nodes, **part},
        "model": model,
        "layout": layout,
        "workload": {
            "overlap": False,
            "gate": {"kind": "uniform", "sampling": "expected"},
            **workload,
        },
    }
    return scenarios.resolve(Document(tree, "pass_time"))


@lru_cache(maxsize=64)
def _steps(
    model: str, hardware: str, sizes: tuple[tuple[str, int], ...]
) -> tuple[int, Callable[[float, float], float]]:
    """Return the GPUs of a deployment, and the time of a step of one token by requests of a GPU and mean context."""
    scenario = _scenario(
        model, hardware, sizes, kind="decode", context_tokens=_CONTEXT, kernel={"kind": "low_latency"}
    )
    work = scenario.workload
    assert isinstance(work, Inference)
    memory, _ = batch_of(scenario, work)
    return work.layout.num_ranks, step_surface.surface(scenario, work, max(2, memory.max_batch)).step_s


@lru_cache(maxsize=64)
def _prefills(
    model: str, hardware: str, sizes: tuple[tuple[str, int], ...]
) -> tuple[int, Callable[[float, float], float]]:
    """Return the GPUs of a deployment, and the time of a pass by new tokens of a GPU and mean tokens attended to."""
    rows = []
    ranks = 0
    for new in _NEW:
        points: dict[float, float] = {}
        shapes = [(1, new, cached) for cached in _CACHED] + [(_PARTS, new // _PARTS, 0)] * (new >= 2 * _PARTS)
        for prompts, tokens, cached in shapes:
            scenario = _scenario(
                model, hardware, sizes, kind="prefill", prompts_per_gpu=prompts, prompt_tokens=tokens + cached,
                cached_tokens=cached, kernel={"kind": "two_hop", "comm_sms": _COMM_SMS}, reserve=0, graphs="0 B",
            )  # fmt: skip
            ranks = scenario.num_ranks
            points[cached + tokens / 2] = run_scenario(scenario)["metrics"]["pass_time_s"]
        attended = sorted(points)
        rows.append(line(attended, [points[one] for one in attended]))

    def time_s(new_tokens: float, attended: float) -> float:
        return line(_NEW, [row(attended) for row in rows])(new_tokens)

    return ranks, time_s
