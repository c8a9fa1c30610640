"""The shape of a sweep file as pydantic models, with its defaults and its JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from sim.scenario.values import METRIC_NAMES, AskSpec, Branch, Count, Index, Number, Whole

Scalar = str | int | float | bool | None


class RangeSpec(Branch):
    """Values from one to another, both there if the step hits them: equal steps, or a factor from each to the next."""

    from_: Annotated[str | Whole | Number, Field(alias="from")]
    to: str | Whole | Number
    step: str | Whole | Number | None = None
    times: Annotated[Number, Field(gt=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> RangeSpec:
        if (self.step is None) == (self.times is None):
            raise ValueError("either 'step' or 'times'")
        return self


def _axis_tag(value: Any) -> str | None:
    if value == "auto":
        return "auto"
    if isinstance(value, list):
        return "values"
    if isinstance(value, dict):
        ends = any(
            key in value and not isinstance(value[key], dict) for key in ("from", "to", "step", "times")
        )
        return "range" if ends else "labels"
    return "range" if isinstance(value, RangeSpec) else None


AxisSpec = Annotated[
    Annotated[Literal["auto"], Tag("auto")]
    | Annotated[list[Scalar | list[Any] | dict[str, Any]], Tag("values")]
    | Annotated[RangeSpec, Tag("range")]
    | Annotated[dict[str, dict[str, Any]], Tag("labels")],
    Discriminator(
        _axis_tag,
        custom_error_type="axis",
        custom_error_message="a list of values, a range {from, to, step}, 'auto', or labels with the keys that each sets",
    ),
]
"""auto: every valid value (of a layout or the schedule); a list; a range; or labels, each with the dotted keys it sets."""


class SampleSpec(Branch):
    """A part of the space, drawn at random: each point as likely as any other, none twice."""

    points: Count
    seed: Index = 0


class SweepSpec(Branch):
    """A sweep file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    title: str | None = None
    question: AskSpec | None = None
    base: str | dict[str, Any]
    """The scenario that is varied: a shipped name, a path, or the scenario itself."""
    variant: str | None = None
    """Which variant of the base, where it has some."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys laid over the base, for all points."""
    axes: dict[str, AxisSpec]
    """Dotted key of a scenario -> its values; or a name -> labelled sets of overrides."""
    given: str | Annotated[list[str], Field(min_length=1)] | None = None
    """An axis, or several, that are conditions and no choices (a machine, say): what is best is told for each of their values."""
    constraints: list[str] = Field(default_factory=list)
    """Expressions over the resolved scenario, memory.* and metrics: `layout.ep * layout.tp <= 256`, `tpot_s <= 50 ms`."""
    objectives: Annotated[dict[str, Literal["minimise", "maximise"]], Field(json_schema_extra=METRIC_NAMES)]
    """Metric -> which way is better; with several the best of them form a Pareto front."""
    sample: SampleSpec | None = None
    replicas: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    """Runs of a point, with seeds that follow on the base's: metrics are means, `spread` their standard deviations."""
    prune: bool = False
    """Skip a point whose lower bound is beaten by a point already run, on every objective; the best stay the same."""
