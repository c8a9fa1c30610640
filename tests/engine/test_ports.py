"""Ports: what shares a NIC shares it by bytes, and no work is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from sim.engine.ports import Ports


@dataclass(frozen=True)
class Asked:
    """Something that starts at `at_s`, takes `alone_s` by itself and fills a part of its ports."""

    at_s: float
    alone_s: float
    fill: float
    weight: float
    ports: tuple[int, ...]


def ends(asked: Sequence[Asked]) -> list[float]:
    """When each one ends [s]; no port is ever above its capacity meanwhile."""
    env = simpy.Environment()
    ports, found = Ports(env), [0.0] * len(asked)

    def one(number: int, what: Asked):  # type: ignore[no-untyped-def]
        yield env.timeout(what.at_s)
        done = ports.use(what.alone_s, what.fill, what.weight, what.ports)
        for here in ports.uses.values():
            assert sum(use.fill * use.pace for use in here) <= 1 + 1e-9
        yield done
        found[number] = env.now

    for number, what in enumerate(asked):
        env.process(one(number, what))
    env.run()
    assert not any(ports.uses.values())
    return found


def test_a_lone_use_takes_its_own_time() -> None:
    assert ends([Asked(2.0, 3.0, 0.4, 7.0, (0, 1))]) == [pytest.approx(5.0)]


def test_uses_of_other_ports_do_not_meet() -> None:
    assert ends([Asked(0, 3, 1, 1, (0, 1)), Asked(0, 2, 1, 1, (2, 3))]) == [3, 2]


def test_two_sends_into_one_port_each_get_half() -> None:
    assert ends([Asked(0, 1, 1, 5, (0, 2)), Asked(0, 1, 1, 5, (1, 2))]) == pytest.approx([2, 2])


def test_two_uses_share_a_port_by_their_bytes() -> None:
    # 3:1 while both run; the first is done at 4/3, when the second has done a third.
    assert ends([Asked(0, 1, 1, 3, (0,)), Asked(0, 1, 1, 1, (0,))]) == pytest.approx([4 / 3, 2])


def test_uses_that_fit_side_by_side_do_not_slow_each_other() -> None:
    assert ends([Asked(0, 2, 0.5, 9, (0,)), Asked(0, 3, 0.5, 1, (0,))]) == pytest.approx([2, 3])


def test_a_send_beside_a_wide_exchange_is_slowed_by_what_the_exchange_may_take() -> None:
    # 9:1 by bytes would give the exchange 0.9 of the port; it can take 0.8. The send has 0.2 until it ends.
    assert ends([Asked(0, 4, 0.8, 9, (0,)), Asked(0, 2, 1, 1, (0,))]) == pytest.approx([4, 4 + 1.2])


def test_one_that_comes_late_slows_what_is_left() -> None:
    assert ends([Asked(0, 2, 1, 1, (0,)), Asked(1, 1, 1, 1, (0,))]) == pytest.approx([3, 3])


def test_a_chain_over_three_ports_is_max_min_fair() -> None:
    # The middle one meets each neighbour on another port: half each; when it is done... all end together.
    assert ends(
        [Asked(0, 1, 1, 1, (0, 1)), Asked(0, 1, 1, 1, (1, 2)), Asked(0, 1, 1, 1, (2, 3))]
    ) == pytest.approx([2, 2, 2])
    # A heavier left neighbour takes 3/4 of port 1; what the middle leaves of port 2 the right one gets.
    left, middle, right = ends(
        [Asked(0, 3, 1, 3, (0, 1)), Asked(0, 10, 1, 1, (1, 2)), Asked(0, 3, 1, 1, (2, 3))]
    )
    assert left == pytest.approx(4)
    assert right == pytest.approx(4)
    assert middle == pytest.approx(4 + 9)


def test_a_use_of_no_part_of_a_port_is_never_in_the_way() -> None:
    assert ends([Asked(0, 2, 0, 1, (0, 1)), Asked(0, 3, 1, 5, (0, 1))]) == pytest.approx([2, 3])


def test_a_use_without_bytes_ends() -> None:
    assert ends([Asked(0, 2, 0, 0, (0,)), Asked(0, 3, 1, 5, (0,))]) == pytest.approx([2, 3])


def test_something_that_takes_no_time_ends_at_once() -> None:
    assert ends([Asked(0, 3, 1, 1, (0,)), Asked(1, 0, 1, 1, (0,))]) == pytest.approx([3, 1])


many = st.lists(
    st.builds(
        Asked,
        at_s=st.floats(0, 5),
        alone_s=st.floats(0.01, 3),
        fill=st.sampled_from((0.0, 0.3, 0.8, 1.0)),
        weight=st.sampled_from((1.0, 2.0, 58e6)),
        ports=st.lists(st.integers(0, 4), min_size=1, max_size=2, unique=True).map(tuple),
    ),
    min_size=1,
    max_size=8,
)


@given(many)
def test_nothing_ends_sooner_than_alone_and_a_port_carries_all_its_work(asked: list[Asked]) -> None:
    found = ends(asked)
    for what, end in zip(asked, found, strict=True):
        assert end >= what.at_s + what.alone_s - 1e-9
    for port in range(5):
        here = [(what, end) for what, end in zip(asked, found, strict=True) if port in what.ports]
        if here:
            work = sum(what.alone_s * what.fill for what, _ in here)
            first, last = min(what.at_s for what, _ in here), max(end for _, end in here)
            assert work <= (last - first) * (1 + 1e-9) + 1e-9


@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0.1, 9)), min_size=1, max_size=7))
def test_a_port_that_all_fill_is_never_idle_while_work_is_left(sizes: list[tuple[float, float]]) -> None:
    found = ends([Asked(0, alone, 1, weight, (0,)) for alone, weight in sizes])
    assert max(found) == pytest.approx(sum(alone for alone, _ in sizes))


@given(many, st.randoms(use_true_random=False))
def test_who_starts_first_at_one_instant_does_not_matter(asked: list[Asked], random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(asked)))
    random.shuffle(order)
    shuffled = ends([asked[i] for i in order])
    assert [shuffled[order.index(i)] for i in range(len(asked))] == pytest.approx(ends(asked))
