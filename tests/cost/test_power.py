"""Energy, term by term, against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.cost import power
from sim.cost.power import Activity, Machines, Stated, energy, load_power

CURVE = replace(
    load_power(),
    gpu=power.GpuPower(
        tensor_fraction=1.0, memory_fraction=0.5, communication_fraction=0.25, idle_fraction=0.1
    ),
    nic=power.PortPower(idle_w=20.0, full_w=30.0),
    switch_port=power.PortPower(idle_w=10.0, full_w=14.0),
    host=power.HostPower(per_gpu_w=100.0),
    building=power.Building(pue=1.5),
)
MACHINES = Machines(num_gpus=2, tdp_w=700.0, num_nics=2, num_ports=6, line_bytes_per_s=50e9)
DONE = Activity(
    elapsed_s=10.0, tensor_s=4.0, memory_s=2.0, communication_s=1.0, sent_bytes=100e9, switched_bytes=300e9
)


def test_gpus_draw_by_what_holds_them_and_the_rest_of_the_time_is_idle() -> None:
    used = energy(CURVE, MACHINES, DONE)
    assert used.gpu_classes_j == pytest.approx(
        {"tensor": 5600.0, "memory": 1400.0, "communication": 350.0, "idle": 420.0}
    )
    assert used.gpu_j == pytest.approx(7770.0)


def test_nics_and_ports_draw_idle_power_all_the_time_and_the_rest_by_their_bytes() -> None:
    nics = 2 * 20 * 10 + 10 * 2.0  # 100 GB at 50 GB/s fill one NIC for two seconds
    ports = 6 * 10 * 10 + 4 * 6.0
    assert energy(CURVE, MACHINES, DONE).network_j == pytest.approx(nics + ports)


def test_hosts_run_along_and_the_building_multiplies_everything() -> None:
    used = energy(CURVE, MACHINES, DONE)
    assert used.host_j == pytest.approx(2 * 100 * 10)
    assert used.total_j == pytest.approx(1.5 * (7770 + 1044 + 2000))


def test_what_is_stated_replaces_its_own_term_alone() -> None:
    stated = Stated(gpu_fraction=0.85, host_w=300, network_w=50, pue=1.2)
    used = energy(CURVE, MACHINES, DONE, stated)
    assert (used.gpu_j, used.network_j, used.host_j, used.pue) == pytest.approx((11_900, 1000, 6000, 1.2))
    assert energy(CURVE, MACHINES, DONE, Stated(host_w=300)).gpu_j == pytest.approx(7770)


def test_every_parameter_lies_in_its_range_and_every_assumed_one_has_a_range() -> None:
    low, high = load_power("low"), load_power("high")
    for row in load_power().parameters:
        assert low.parameter(row.path).value <= row.value <= high.parameter(row.path).value
        assert row.grade != "assumed" or row.low
