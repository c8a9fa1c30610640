"""The serving workload as a scenario may write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sim.scenario.routing import Branch, Count, Machines, Number
from sim.schemas import quantity


class LengthsSpec(Branch):
    """How many tokens a prompt or an answer has."""

    kind: Literal["fixed", "exponential", "lognormal"]
    mean: Count
    """Tokens."""
    spread: Annotated[Number, Field(ge=0, le=4)] = 1.0
    """Standard deviation of the logarithm (lognormal)."""
    most: Count = 131_072
    """A longer draw is cut to this."""


class PoissonSpec(Branch):
    """Independent users."""

    kind: Literal["poisson"]
    requests: Annotated[int, Field(ge=1, le=10**7, strict=True)]
    requests_per_s: Annotated[Number, Field(gt=0, le=1e7)]
    prompt: LengthsSpec
    output: LengthsSpec


class RequestTraceSpec(Branch):
    """Requests as recorded."""

    kind: Literal["trace"]
    file: str
    """arrival_s,prompt_tokens,output_tokens; relative to the scenario, or absolute."""


class PrefillPoolSpec(Branch):
    """Instances that prefill."""

    instances: Machines = 1
    ep: Count
    """GPUs of one instance."""
    batch_tokens: Count = 16_384
    """Most prompt tokens of a GPU in one pass; longer prompts go in chunks."""
    plan: dict[str, Any]
    """A `prefill` workload without kind and prompts: gate, kernel, placement, overlap ..."""


class DecodePoolSpec(Branch):
    """Instances that decode."""

    instances: Annotated[int, Field(ge=0, le=2**17, strict=True)] = 1
    """0: the prefill instances decode too, and a prefill holds up their steps."""
    ep: Count
    """GPUs of one instance."""
    requests_per_gpu: Annotated[int, Field(ge=1, le=10**5, strict=True)] | None = None
    """Most requests of a GPU in one step; what memory holds at the mean context when left out."""
    plan: dict[str, Any]
    """A `decode` workload without kind, requests and context: gate, kernel, tokens_per_step, acceptance ..."""


class ObjectiveSpec(Branch):
    """What a request must meet to count as good."""

    ttft: quantity("s") | None = None  # type: ignore[valid-type]
    tpot: quantity("s") | None = None  # type: ignore[valid-type]


class ServingSpec(Branch):
    """Requests that arrive, wait, are prefilled and decoded."""

    kind: Literal["serving"]
    arrivals: Annotated[PoissonSpec | RequestTraceSpec, Field(discriminator="kind")]
    prefill: PrefillPoolSpec
    decode: DecodePoolSpec
    policy: Literal["fcfs", "first_fit", "shortest_first"] = "fcfs"
    """Who is taken from a queue."""
    cached: quantity("fraction") = "0 %"  # type: ignore[valid-type]
    """Of every prompt, found in a cache and not computed."""
    slo: ObjectiveSpec = ObjectiveSpec()
    until: quantity("s") | None = None  # type: ignore[valid-type]
    """When to stop; until the last request has ended when left out."""
