"""The view of an iteration of reinforcement learning: its stages, its pools, and the tail of its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sim.show.views.lanes import Lanes, Span
from sim.show.views.record import mapping, record
from sim.show.views.run import RunView

SIZES = ()
"""Parallel dimensions that mean something: rollout and update have layouts of their own."""
STAGES = {
    "rollout": ("rollout", "#005EAE"),
    "reward": ("reward", "#BC0000"),
    "offload": ("offload and onload", "#86515E"),
    "logprob": ("log-probabilities", "#BC86F2"),
    "update": ("update", "#F2791B"),
    "sync": ("new weights", "#5EAE94"),
}
"""Stage of an iteration -> what to call it, and its colour."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RlView(RunView):
    """An iteration of reinforcement learning; fields are named as the metrics."""

    family: ClassVar[str] = "rl_step"

    step_time_s: float
    rollout_s: float
    reward_s: float
    logprob_s: float
    update_s: float
    sync_s: float
    offload_s: float
    tail_wait_gpu_s: float
    tokens_per_s: float
    staleness_mean: float
    carried_samples: float | None = None
    stale_tokens_fraction: float = 0.0
    discarded_tokens_fraction: float = 0.0
    step_cost_usd: float | None = None
    idle_fraction: Mapping[str, float]
    """By pool."""
    end_s: Sequence[float] = ()
    left: Sequence[int] = ()
    """Instants at which samples of a rollout ended or were stopped, and how many were left then."""

    @property
    def last_tenth_fraction(self) -> float:
        """Part of the rollout's time in which no more than a tenth of its samples are left."""
        most = (self.left[0] + 1) / 10
        since = next((end for end, left in zip(self.end_s, self.left, strict=True) if left <= most), 0.0)
        return 1.0 - since / self.end_s[-1]

    @property
    def stages_s(self) -> dict[str, float]:
        """Time of each stage, by the keys of `STAGES`."""
        return {name: getattr(self, f"{name}_s") for name in STAGES}

    @property
    def overlaps(self) -> bool:
        """True where stages of two iterations go on at once."""
        return self.step_time_s < sum(self.stages_s.values()) * (1 - 1e-9)


def facts(work: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the facts that only this kind of workload has."""
    lengths, pools = mapping(work.get("lengths")), work.get("pools")
    return [
        ("prompts", work.get("prompts")),
        ("samples of each", work.get("samples")),
        (
            "tokens of an answer",
            f"{lengths.get('kind')}, mean {lengths.get('mean')}, at most {lengths.get('most')}",
        ),
        ("late prompts", _late(work.get("tail"))),
        ("updates", work.get("updates")),
        ("pools", "apart" if isinstance(pools, Mapping) else pools),
        ("staleness", work.get("staleness")),
        ("new weights by", mapping(work.get("sync")).get("mode")),
    ]


def _late(tail: Any) -> str | None:
    own = mapping(tail)
    return f"{str(own.get('kind')).replace('_', ' ')}, {own.get('done', '80 %')} done" if own else None


def is_complete(metrics: Mapping[str, Any]) -> bool:
    """Check that the metrics are those of an iteration."""
    return "rollout_s" in metrics


def view(result: Mapping[str, Any], common: Mapping[str, Any]) -> RlView:
    """Read what a result has of an iteration; `common` are the fields of any run."""
    samples = mapping(mapping(result.get("timeline")).get("samples"))
    course = {key: tuple(samples.get(key) or ()) for key in ("end_s", "left")}
    return record(RlView, mapping(result.get("metrics")), **common, **course)


def lanes_of(result: Mapping[str, Any]) -> Lanes | None:
    """A row for each pool with the stages of one iteration; None of a result without them."""
    timeline = mapping(result.get("timeline"))
    shown: Sequence[Mapping[str, Any]] = timeline.get("stages") or ()
    if not shown or "stage" not in shown[0]:
        return None
    pools = tuple(dict.fromkeys(str(row["pool"]) for row in shown))
    spans: dict[str, list[Span]] = {}
    for row in shown:
        name = str(row["stage"])
        span = (float(row["start_s"]), float(row["end_s"]), pools.index(str(row["pool"])), STAGES[name][0])
        spans.setdefault(name, []).append(span)
    stale = mapping(mapping(result.get("scenario")).get("workload")).get("staleness")
    note = "one iteration; the next rollout goes on meanwhile" if stale else ""
    return Lanes("pool", pools, float(timeline["end_s"]), {name: STAGES[name] for name in spans}, spans, note)
