"""Numbers and branches as a scenario may write them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetJsonSchemaHandler, Tag
from pydantic.config import JsonDict

from sim.descriptions import documented
from sim.metrics import NUMBERS
from sim.schemas import WORD, Fraction, written
from sim.workload.requests import Lengths

Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]


Machines = Annotated[int, Field(ge=1, le=2**17, strict=True)]  # what is built as a graph


NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
"""Pattern of what is part of the name of a metric."""


Index = Annotated[int, Field(ge=0, strict=True)]


CpComm = Literal["all_gather", "p2p"]
"""How ranks of CP come by each other's keys and values; the words are Transformer Engine's."""

MAX_MICROBATCHES = 2**17  # of one step; each pass of each of them is an operation


Whole = Annotated[int, Field(strict=True)]


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]  # no word, and no truth, is a number


_OF_CLASSES = r"^classes\.[A-Za-z0-9][A-Za-z0-9_-]*\."
METRIC_NAMES: JsonDict = {"propertyNames": {"anyOf": [{"enum": list(NUMBERS)}, {"pattern": _OF_CLASSES}]}}
"""JSON Schema of a mapping from metrics, of all requests or of a class of them."""


class Branch(BaseModel):
    """A mapping of the scenario; unknown keys are problems."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def __init__(self, /, **data: Any) -> None:
        """Fill in a branch in Python: its `kind`, where it can have only one, need not be said."""
        field = type(self).model_fields.get("kind")
        kinds = get_args(field.annotation) if field is not None and field.is_required() else ()
        super().__init__(**({"kind": kinds[0]} if len(kinds) == 1 else {}) | data)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # files are read past it

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return documented(cls, core, handler)


class AskSpec(Branch):
    """The question that a file answers; its report opens with it."""

    ask: str
    """The question in words."""


class SpreadSpec(Branch):
    """Lognormal standard deviations between ranks."""

    kernel_jitter: Fraction = written("2 %")
    """Spread of a launch's time."""
    gpu_spread: Fraction = written("1.5 %")
    """Spread of the GPUs' speeds, each drawn once for the whole step or pass."""


def _word_or_branch(value: Any) -> str:
    return "branch" if isinstance(value, dict | Branch) else WORD


Word = TypeVar("Word")
Keys = TypeVar("Keys", bound=Branch)
WordOr = Annotated[
    Annotated[Word, Tag(WORD)] | Annotated[Keys, Tag("branch")], Discriminator(_word_or_branch)
]
"""A word or a branch, by what is written: problems are those of the one."""


def _each_or_one(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else "one"


Value = TypeVar("Value")
EachOr = Annotated[
    Annotated[Value, Tag("one")] | Annotated[list[Value], Tag("list")], Discriminator(_each_or_one)
]
"""A value for all, or a list with one for each."""


class LengthsSpec(Branch):
    """Tokens of a prompt, an answer or a document."""

    kind: Literal["fixed", "exponential", "lognormal"]
    mean: Count
    """Tokens."""
    spread: Annotated[Number, Field(ge=0, le=4)] = 1.0
    """Standard deviation of the logarithm (lognormal)."""
    most: Count = 131_072
    """A longer draw is cut to this."""

    @property
    def distribution(self) -> Lengths:
        """What lengths are drawn from."""
        return Lengths(self.kind, float(self.mean), self.spread, self.most)


class WorkloadSpec(Branch):
    """The workload of a scenario as written, of one kind."""

    kind: str
