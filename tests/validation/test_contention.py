"""The hand calculations of `scenarios/published/contention.yaml`, from the numbers that its notes name."""

from __future__ import annotations

import pytest

from figures import rows, worst_error
from sim import units
from sim.validation.validate import load

NIC, HEADERS = 50e9, 65 / 64
SEND = 4096 * 4096 * 2
EXCHANGE = 4096 * (1 - 28 / 120) * (8224 + 8208)  # a dispatch and a combine, to the other of two nodes
ATTENTION, GATE, NORMS = 2 * 4096 * 4096 + 2 * 4096 * 1024, 4096 * 16, 2 * 4096
EXPERT, EMBEDDING = 3 * 4096 * 1024, 1024 * 4096


def reduced(layers: int, dense: float = 1.0, experts: float = 1.0) -> float:
    """Gradients scattered and weights gathered between nodes [bytes of a GPU]; the head is as large as the embedding."""
    held = layers * (ATTENTION + GATE + NORMS) + EMBEDDING
    return 2 * 2 * (dense * held / 8 * 3 / 4 + experts * layers * EXPERT / 2)


def longer_s(num_bytes: float, power: int) -> float:
    """Time that bytes take longer at a part of the NIC's rate of 1 / 32^power than at 1 / 16^power."""
    return num_bytes * HEADERS * (32**power - 16**power) / NIC


HAND = {
    "reductions-through-a-core": longer_s(reduced(1), 2),
    "all-through-a-core": longer_s(6 * EXCHANGE + 2 * SEND + reduced(2), 2),
    "send-beside-all-to-alls": longer_s(10 * EXCHANGE + 4 * SEND + reduced(2), 2),
    "sends-of-two-groups-on-a-leaf": longer_s(2 * SEND, 1),
    "two-rings-on-a-leaf": longer_s(reduced(1, dense=0.5), 1),
}


def test_the_figures_are_those_of_the_hand_calculations() -> None:
    found = {each.name: units.parse(each.value, "s") for each in load("contention").differences}
    assert found == pytest.approx(HAND, rel=1e-5)


def test_a_step_s_transfers_meet_as_the_hand_calculations_say() -> None:
    found = rows("contention")
    assert len(found) == len(HAND)
    assert worst_error(found) < 1e-4


def test_the_row_with_contention_would_be_missed_without_it() -> None:
    """A send that comes beside all-to-alls and slows nothing is one S less, more than twice the bar."""
    without = longer_s(10 * EXCHANGE + 3 * SEND + reduced(2), 2)
    assert 1 - without / HAND["send-beside-all-to-alls"] > 0.04
