"""Records against the dataclasses of the standard library, which are made of the same declarations."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, asdict, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from sim import records

ROOT = Path(__file__).parents[2]
THEIRS = re.compile(r"from dataclasses import .*\bdataclass\b|\bdataclasses\.dataclass\b")
OPTIONS: list[dict[str, bool]] = [
    {"frozen": True, "slots": True},
    {"frozen": True, "slots": True, "kw_only": True},
    {"frozen": True, "slots": True, "eq": False},
    {"frozen": True},
    {"slots": True},
    {},
]


def declared(make: Callable[..., Any], options: dict[str, bool]) -> tuple[Any, Any]:
    """A record of every sort of field, and one derived from it."""

    @make(**options)
    class Base:
        """A base."""

        first: int
        second: float = 2.0
        third: list[int] = field(default_factory=list, compare=False)
        silent: str = field(default="silent", repr=False)
        unhashed: tuple[int, ...] = field(default=(), hash=False)
        own: dict[str, int] = field(default_factory=dict, init=False, compare=False)

        def __post_init__(self) -> None:
            self.own["first"] = self.first

    @make(**options)
    class Derived(Base):
        """A record derived from it."""

        fourth: Any = None

    return Base, Derived


@pytest.fixture(params=OPTIONS, ids=str)
def pairs(request: pytest.FixtureRequest) -> list[tuple[Any, Any]]:
    """Ours and theirs, of the base and of the derived record."""
    ours, theirs = declared(records.dataclass, request.param), declared(dataclasses.dataclass, request.param)
    return [*zip(ours, theirs, strict=True)]


def outcome(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call returns, or its error."""
    try:
        return call(*args, **kwargs)
    except (TypeError, AttributeError, ValueError) as error:
        return type(error), str(error)


def made(kind: Any) -> Iterator[Any]:
    yield kind(first=1)
    yield kind(first=1, second=3.0)
    yield kind(first=1, third=[1])
    yield kind(first=1, silent="loud")
    yield kind(first=1, unhashed=(1,))


def test_a_record_is_made_shown_and_written_as_a_dataclass_is(pairs: list[tuple[Any, Any]]) -> None:
    for ours, theirs in pairs:
        assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
        assert ours.__match_args__ == theirs.__match_args__
        assert hasattr(ours, "__dict__") == hasattr(theirs, "__dict__")
        assert vars(ours).get("__slots__") == vars(theirs).get("__slots__")
        for one, other in zip(made(ours), made(theirs), strict=True):
            assert repr(one) == repr(other)
            assert asdict(one) == asdict(other)
            assert [each.name for each in fields(one)] == [each.name for each in fields(other)]
        for wrong in ({}, {"first": 1, "fifth": 5}, {"first": 1, "own": {}}):
            assert outcome(ours, **wrong) == outcome(theirs, **wrong)
        for given in ((1, 2.0), (1, 2.0, [3])):
            assert repr(outcome(ours, *given)) == repr(outcome(theirs, *given))
        assert ours(first=1).third is not ours(first=1).third


def test_records_are_equal_and_hashed_as_dataclasses_are(pairs: list[tuple[Any, Any]]) -> None:
    for ours, theirs in pairs:
        one, other = [
            [*made(kind), kind(first=1), replace(kind(first=2), first=1)] for kind in (ours, theirs)
        ]
        assert [[a == b for a in one] for b in one] == [[a == b for a in other] for b in other]
        if theirs.__hash__ is object.__hash__:
            assert ours.__hash__ is object.__hash__
        else:
            assert [outcome(hash, each) for each in one] == [outcome(hash, each) for each in other]
    (base, _), (derived, _) = pairs
    assert (base(first=1) == derived(first=1)) is False


def test_what_is_frozen_refuses_as_a_dataclass_does_and_travels_between_processes(
    pairs: list[tuple[Any, Any]],
) -> None:
    for kinds in pairs:
        for change in (setattr, lambda record, name, _: delattr(record, name)):
            for name in ("first", "own"):
                ours, theirs = (outcome(change, kind(first=1), name, 2) for kind in kinds)
                assert (ours, name) == (theirs, name)
        ours = kinds[0]
        if hasattr(ours, "__slots__"):
            assert issubclass(outcome(setattr, ours(first=1), "nameless", 2)[0], AttributeError)
        there = copy.copy(ours(first=1, second=7.0))  # by the way of pickle
        assert type(there) is ours
        assert asdict(there) == asdict(ours(first=1, second=7.0))


def test_one_that_holds_itself_is_shown_without_end_as_a_dataclass_is(pairs: list[tuple[Any, Any]]) -> None:
    for kinds in pairs:
        shown = []
        for kind in kinds:
            record = kind(first=1)
            record.third.append(record)
            shown.append(repr(record))
        assert shown[0] == shown[1]


def test_a_class_derived_from_a_frozen_record_keeps_what_it_works_out_and_its_own_methods() -> None:
    @records.dataclass(frozen=True)
    class Circle:
        """A circle."""

        radius: float

        @cached_property
        def area(self) -> float:
            return 3.0 * self.radius**2

        def __repr__(self) -> str:
            return "a circle"

    class Named(Circle):
        pass

    circle = Named(2.0)
    assert (circle.area, circle.area, repr(circle)) == (12.0, 12.0, "a circle")
    setattr(circle, "name", "round")  # noqa: B010
    with pytest.raises(FrozenInstanceError):
        setattr(circle, "radius", 1.0)  # noqa: B010


def test_all_dataclasses_of_the_simulator_are_records() -> None:
    files = {
        path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in (ROOT / "sim").rglob("*.py")
    }
    others = [str(path) for path, text in files.items() if THEIRS.search(text)]
    assert others == ["sim/records.py"], "wanted: from sim.records import dataclass"
