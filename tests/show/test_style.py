"""The colours of figures: any two of one picture can be told apart, whatever the eye."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from colour import VISIONS, confusable, distance, lab
from sim.show import style

PUBLISHED = (
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
)
"""Rows of Table 1 of Sharma, Wu and Dalal (2005)."""


@pytest.mark.parametrize(("one", "other", "published"), PUBLISHED)
def test_the_distance_is_the_published_one(
    one: tuple[float, ...], other: tuple[float, ...], published: float
) -> None:
    assert distance(np.array(one), np.array(other)) == pytest.approx(published, abs=1e-4)


@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_series_can_be_told_apart(vision: str) -> None:
    for one, other in combinations(style.SERIES, 2):
        assert distance(lab(one, vision), lab(other, vision)) >= 20, (one, other)


@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_classes_of_resources_can_be_told_apart(vision: str) -> None:
    for one, other in combinations(style.COLOUR, 2):
        assert distance(lab(style.COLOUR[one], vision), lab(style.COLOUR[other], vision)) >= 12, (one, other)


@pytest.mark.parametrize("paper", ["#FFFFFF", "#14181C"])
def test_colours_stand_out_from_paper(paper: str) -> None:
    for colour in (*style.SERIES, *style.COLOUR.values()):
        assert abs(lab(colour)[0] - lab(paper)[0]) >= 25, colour


@pytest.mark.parametrize("vision", VISIONS)
def test_other_colours_are_told_from_all_by_their_hatch_too(vision: str) -> None:
    """Twelve of CIEDE2000, less what rounding of a search leaves."""
    for one, other in combinations((*style.SERIES, *style.OTHERS.values()), 2):
        if not {one, other} <= set(style.SERIES):
            assert distance(lab(one, vision), lab(other, vision)) >= 12, (one, other)
            assert style.fill(one) != style.fill(other)
    hatches = [style.fill(colour)["pattern"]["shape"] for colour in style.OTHERS.values()]
    assert len(set(hatches)) == len(hatches)


def test_series_that_are_too_near_are_found() -> None:
    def bar(colour: str, name: str, **look: object) -> dict[str, object]:
        return {"type": "bar", "name": name, "marker": {"color": colour, **look}}

    assert not list(confusable([bar("#005EAE", "a"), bar("#F2791B", "b")]))
    assert [(one, other) for one, other, _ in confusable([bar("#005EAE", "a"), bar("#0072B2", "b")])] == [
        ("a", "b")
    ]
    olive, green = bar(style.OTHERS["olive"], "a"), bar(style.SERIES[2], "b")
    assert list(confusable([olive, green]))
    hatched = {**olive, "marker": style.fill(style.OTHERS["olive"])}
    assert list(confusable([hatched, green])), "of a few series a hatch does not make up for a colour"
    many = [bar(colour, f"series {i}") for i, colour in enumerate(style.SERIES) if colour != style.SERIES[2]]
    assert not list(confusable([hatched, green, *many]))
    assert list(confusable([olive, green, *many]))
    assert list(confusable([bar("#005EAE", "a"), bar("#005EAE", "b")]))


def test_a_machine_has_one_colour_in_every_picture() -> None:
    first = style.machines(["h800", "h100", "h100-235"])
    other = style.machines(["h100", "h20", "h800", "mine"])
    assert [first[name] for name in ("h800", "h100")] == [other[name] for name in ("h800", "h100")]
    for given in (first, other, style.machines(["mine", "yours", "h800"])):
        assert len(set(given.values())) == len(given)


def test_a_few_series_have_colours_that_differ_by_20() -> None:
    olive, pale = style.OTHERS["olive"], style.OTHERS["pale"]
    few = {"a": style.SERIES[2], "b": olive, "c": pale, "d": olive}
    given = style.distinct(few)
    assert given["a"] == style.SERIES[2]
    assert given["b"] == given["d"]
    assert len(set(given.values())) == 3
    assert set(given.values()) <= set(style.SERIES)
    many = {str(i): colour for i, colour in enumerate((*style.SERIES, olive))}
    assert style.distinct(many) == many
