"""Sizes of deployments: the fewest GPUs of a machine that hold a model and serve some users at a time per token, and how.

Numbers of GPUs are tried from below: each way to divide one node, then whole nodes. On each, every layout of `_layouts` is run as a
scenario of decoding, with all users' requests in the cache at once; of those that fit and meet the limit, the one with the least
time per token answers. A number on which memory lacks is refused before anything runs, so the smaller ones cost little.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sim import units
from sim.cluster.hardware import load_hardware
from sim.documents import Document
from sim.errors import DoesNotFitError, InfeasibleError, InputError, Problem
from sim.runs.kinds import Progress
from sim.runs.run import run_scenario
from sim.scenario import resolve as scenarios
from sim.units import UnitError
from sim.version import __version__
from sim.workload.model import Model, load_model

SCHEMA = "moesim.size/1"
MOST_GPUS = 1024
"""GPUs up to which numbers are tried."""
_TP = (1, 2, 4, 8, 16)
_K = 1024  # tokens of a context; as models are named
_GAIN = 0.02  # more GPUs that shorten a token by less are none that help
_PATIENCE = 4  # numbers of GPUs without such a gain, until the limit is taken for one that no number meets


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be served: users at once, each with so many tokens in the cache, and the longest time per token [s], if any."""

    context_tokens: int
    users: int
    tpot_s: float | None


def tokens_of(text: str) -> int:
    """Return a length of context: `32K` is 32,768 tokens. Raises `InputError`."""
    written = re.fullmatch(r"\s*(\d+)\s*([kK]?)\s*", text)
    tokens = int(written[1]) * (_K if written[2] else 1) if written else 0
    if not 1 <= tokens <= 2**24:
        wanted = "tokens of each user in the cache, like 32K (of 1,024) or 5000"
        raise InputError(Problem(None, "--context", f"'{text}'", wanted))
    return tokens


def seconds_of(text: str) -> float:
    """Return a time per token [s]: `50ms`. Raises `InputError`."""
    wanted = "a time above 0 with its unit, like '50 ms'"
    try:
        value = units.parse(text, "s")
    except UnitError:
        value = 0.0
    if value <= 0:
        raise InputError(Problem(None, "--tpot", f"'{text}'", wanted))
    return value


def size(
    model: str, hardware: Sequence[str], asked: Asked, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Find the fewest GPUs of each machine that hold and serve a model; both are shipped, or paths of files.

    By machine: `gpus`, the layout, and what it reaches; None and the `reason` where no number up to `MOST_GPUS`
    does. `smaller` says why the number below does not do.
    """
    described = load_model(model)
    return {
        "schema": SCHEMA,
        "model": model,
        "title": described.name,
        "context_tokens": asked.context_tokens,
        "users": asked.users,
        "tpot_limit_s": asked.tpot_s,
        "machines": {name: _machine(model, described, name, asked, progress) for name in hardware},
        "provenance": {"version": __version__},
    }


def _machine(model: str, described: Model, name: str, asked: Asked, progress: Progress) -> dict[str, Any]:
    machine = load_hardware(name)
    per_node = int(machine.gpu.scale_up.domain)
    smaller: dict[str, Any] | None = None
    best_s, without_gain = math.inf, 0
    progress(f"{described.name} on {machine.title}")
    for num_gpus in _numbers(per_node):
        ran, reason = _tried(model, described, name, per_node, num_gpus, asked)
        fits = [row for row in ran if asked.tpot_s is None or row["tpot_s"] <= asked.tpot_s]
        if fits:
            best = min(fits, key=lambda row: row["tpot_s"])
            price = machine.gpu_hour_usd
            hourly = None if price is None else price * num_gpus
            return {
                "title": machine.title,
                "gpus": num_gpus,
                **best,
                "usd_per_hour": hourly,
                "usd_per_million_tokens": hourly
                and hourly / 3600 / (best["tokens_per_s_per_gpu"] * num_gpus) * 1e6,
                "smaller": smaller,
            }
        if ran:
            least = min(row["tpot_s"] for row in ran)
            reason = f"a token takes {units.show(least, 's', 3)}"
            without_gain = 0 if least < best_s * (1 - _GAIN) else without_gain + 1
            best_s = min(best_s, least)
        smaller = {"gpus": num_gpus, "reason": reason}
        if without_gain >= _PATIENCE:
            reason = f"no number of GPUs is faster than {units.show(best_s, 's', 3)} a token by more than 2 %"
            return {"title": machine.title, "gpus": None, "reason": reason, "smaller": smaller}
    reason = f"not on {MOST_GPUS:,} GPUs either: {smaller['reason'] if smaller else ''}"
    return {"title": machine.title, "gpus": None, "reason": reason, "smaller": smaller}


def _numbers(per_node: int) -> Iterator[int]:
    """Yield numbers of GPUs from below: parts of a node that divide it, then whole nodes."""
    yield from (number for number in range(1, per_node) if per_node % number == 0)
    yield from range(per_node, MOST_GPUS + 1, per_node)


def _layouts(model: Model, num_gpus: int) -> Iterator[dict[str, int]]:
    """Yield layouts: EP over all GPUs with each TP of attention; of a dense model TP alone, with copies of it."""
    for tp in (tp for tp in _TP if num_gpus % tp == 0):
        yield {"tp": tp, "ep": num_gpus if model.num_experts > 1 else 1}


def _tried(
    model: str, described: Model, name: str, per_node: int, num_gpus: int, asked: Asked
) -> tuple[list[dict[str, Any]], str]:
    """Run every layout on so many GPUs; return what ran, and why the others did not."""
    ran: list[dict[str, Any]] = []
    reason, lacks = "no layout divides model and GPUs so", math.inf
    for layout in _layouts(described, num_gpus):
        for overlap in (False, True) if layout["ep"] > 1 else (False,):
            tree = _scenario(model, described, name, per_node, num_gpus, layout, overlap, asked)
            try:
                result = run_scenario(scenarios.resolve(Document(tree, "size")))
            except DoesNotFitError as error:
                if error.needed_bytes < lacks:
                    lacks, reason = error.needed_bytes, str(error).partition(";")[0]
                continue
            except InfeasibleError as error:
                reason = str(error) if lacks == math.inf else reason
                continue
            except InputError as error:
                _own(error, layout)
                continue
            metrics = result["metrics"]
            held = max(sum(parts.values()) - parts["rank"] for parts in result["memory"])
            ran.append(
                {
                    "nodes": math.ceil(num_gpus / per_node),
                    "layout": layout,
                    "overlap": overlap,
                    "tpot_s": metrics["tpot_s"],
                    "tokens_per_s_per_gpu": metrics["tokens_per_s_per_gpu"],
                    "max_users": int(metrics["max_batch_per_gpu"] * num_gpus),
                    "memory_bytes": held,
                    "memory_capacity_bytes": metrics["memory_capacity_bytes"],
                    "scenario": tree,
                }
            )
    return ran, reason


def _own(error: InputError, layout: dict[str, int]) -> None:
    """Raise an error that no layout is to blame for."""
    if any(not problem.key.startswith(("layout.", "workload.placement")) for problem in error.problems):
        raise InputError(error.problems)


def _scenario(
    model: str, described: Model, name: str, per_node: int, num_gpus: int,
    layout: dict[str, int], overlap: bool, asked: Asked,
) -> dict[str, Any]:  # fmt: skip
    nodes = math.ceil(num_gpus / per_node)
    redundant = -described.num_experts % layout["ep"] if described.num_experts > 1 else 0
    gpus = {"gpus": num_gpus} if num_gpus < per_node * nodes else {}
    return {
        "name": "size",
        "cluster": {"hardware": name, "nodes": nodes, **gpus},
        "model": model,
        "layout": layout,
        "workload": {
            "kind": "decode",
            "requests": asked.users,
            "context_tokens": asked.context_tokens,
            "overlap": overlap,
            "gate": {"kind": "uniform", "sampling": "expected"},
            "kernel": {"kind": "low_latency"},
            **({"placement": {"kind": "eplb", "redundant_experts": redundant}} if redundant else {}),
        },
    }
