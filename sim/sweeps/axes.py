"""Axes of a sweep, and the points that all their combinations make.

An axis is a dotted key of a scenario with its values, or a name with labelled sets of overrides (`machine: {h800: {...},
h100: {...}}`) where several keys change together. Points are numbered; the last axis runs fastest. A point's values follow
from its number alone, so a space of millions takes no memory.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim import documents
from sim.errors import Mark

Value = str | int | float | bool | None | list[Any] | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its name, its values as they are shown, and the keys that each of them sets."""

    name: str
    values: tuple[Value, ...]
    sets: tuple[Mapping[documents.Path_, Any], ...]
    mark: Mark

    @classmethod
    def from_key(cls, key: str, values: Sequence[Value], mark: Mark) -> Axis:
        """Return the axis of a key of the scenario."""
        path = documents.split(key)
        return cls(key, tuple(values), tuple({path: value} for value in values), mark)

    @classmethod
    def from_labels(cls, name: str, labelled: Mapping[str, Mapping[str, Any]], mark: Mark) -> Axis:
        """Return an axis of labels, each with the dotted keys that it sets."""
        sets = tuple(
            {documents.split(key): value for key, value in overrides.items()}
            for overrides in labelled.values()
        )
        return cls(name, tuple(labelled), sets, mark)


@dataclass(frozen=True, slots=True)
class Space:
    """All combinations of some axes, or a sample of them."""

    axes: tuple[Axis, ...]
    sampled: tuple[int, ...] | None = None  # numbers of points, ascending; None for all of them

    @property
    def size(self) -> int:
        """Combinations, sampled or not."""
        return math.prod(len(axis.values) for axis in self.axes)

    def __len__(self) -> int:
        return self.size if self.sampled is None else len(self.sampled)

    def numbers(self) -> Sequence[int]:
        """Return the numbers of the points, ascending."""
        return range(self.size) if self.sampled is None else self.sampled

    def sample(self, num_points: int, seed: int) -> Space:
        """Draw a part of the space: so many points, each as likely as any other, none twice."""
        if num_points >= self.size:
            return Space(self.axes)
        drawn = random.Random(seed).sample(range(self.size), num_points)
        return Space(self.axes, tuple(sorted(drawn)))

    def places(self, number: int) -> tuple[int, ...]:
        """Return the index of the value that a point has on each axis, [num_axes]."""
        reversed_places = []
        for axis in reversed(self.axes):
            number, place = divmod(number, len(axis.values))
            reversed_places.append(place)
        return tuple(reversed(reversed_places))

    def values(self, number: int) -> dict[str, Value]:
        """Return the value of a point on each axis, by name."""
        return {axis.name: axis.values[i] for axis, i in zip(self.axes, self.places(number), strict=True)}

    def overrides(self, number: int) -> Iterator[tuple[documents.Path_, Any, Mark]]:
        """Yield path, value and mark of everything that a point sets in the base scenario; later axes win."""
        for axis, i in zip(self.axes, self.places(number), strict=True):
            for path, value in axis.sets[i].items():
                yield path, value, axis.mark
