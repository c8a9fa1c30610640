"""Time of a forward pass for simulators of serving: seconds of a batch, at microseconds a call.

Requests are dealt to the ranks of a deployment one after the other. A step of one token a request is read from the surface that
serving uses for steps (`step_surface`), a pass with more new tokens from that for prompts (`pass_surface`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from sim.cluster.hardware import load_hardware
from sim.documents import Document
from sim.runs import step_surface
from sim.runs.inference import batch_of
from sim.runs.pass_surface import PassSurface
from sim.scenario import resolve as scenarios
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule.serving import PassCost, PassWork

_CONTEXT = 4096  # mean tokens of a request, around which steps of one token are simulated
_MOST = 16_384  # new tokens of a GPU up to which passes are simulated
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
    Passes are simulated when a deployment is first asked about what lies near them. Memory of the requests is not checked.

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
    ranks, cost = _steps(*key) if new_tokens == 1 else _prefills(*key)
    of_rank = [contexts[rank::ranks] for rank in range(ranks)]
    if new_tokens == 1:
        requests = np.array([len(own) for own in of_rank])
        return cost(PassWork({}, requests, np.array([float(sum(own)) for own in of_rank])))
    chunks = {
        rank: [(new_tokens, int(context)) for context in own] for rank, own in enumerate(of_rank) if own
    }
    return cost(PassWork(chunks, np.zeros(ranks, dtype=np.int64), np.zeros(ranks)))


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
def _steps(model: str, hardware: str, sizes: tuple[tuple[str, int], ...]) -> tuple[int, PassCost]:
    """Return the ranks of a deployment that have requests, and the time of a step of one token."""
    scenario = _scenario(
        model, hardware, sizes, kind="decode", context_tokens=_CONTEXT, kernel={"kind": "low_latency"}
    )
    work = scenario.workload
    assert isinstance(work, Inference)
    memory, _ = batch_of(scenario, work)
    return work.layout.dp, step_surface.surface(scenario, work, max(2, memory.max_batch)).step_s


@lru_cache(maxsize=64)
def _prefills(model: str, hardware: str, sizes: tuple[tuple[str, int], ...]) -> tuple[int, PassCost]:
    """Return the ranks of a deployment that have requests, and the time of a pass of new tokens."""
    scenario = _scenario(
        model, hardware, sizes, kind="prefill", prompts_per_gpu=1, prompt_tokens=_MOST,
        kernel={"kind": "two_hop", "comm_sms": _COMM_SMS}, reserve=0, graphs="0 B",
    )  # fmt: skip
    work = scenario.workload
    assert isinstance(work, Inference)
    batch_of(scenario, work)
    return work.layout.dp, PassSurface(scenario, work, _MOST * work.layout.num_ranks // work.layout.dp)
