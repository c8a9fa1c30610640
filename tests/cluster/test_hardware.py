"""Hardware and kernel profiles: every number has a unit, a grade and a source, and nothing is lost on the
way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sim import documents, units
from sim.cluster.datasheet import describe
from sim.cluster.hardware import Hardware, list_hardware, load_hardware
from sim.cluster.kernels import list_kernels, load_kernel
from sim.errors import InfeasibleError, InputError

PROFILES = (
    "a100", "a800", "b200", "b300", "cloudmatrix384-dies", "cloudmatrix384", "gb200-nvl72", "gb300-nvl72", "h100", "h20-141g", "h20",
    "h200", "h800", "mi300x", "mi325x", "mi355x", "rtx-pro-6000",
)  # fmt: skip
KERNELS = (
    "deepep_ll_2025_06", "deepep_v1_2025_02", "deepep_v1_2025_04", "deepep_v1_2025_09", "deepep_v2", "flat", "hybrid_ep",
    "low_latency", "nccl",
)  # fmt: skip
FILES = [path for path in documents.shipped("hardware").values() if "chip" not in documents.load(path).tree]
FILES += [
    *documents.shipped("hardware/chips").values(),
    *documents.shipped("hardware/nodes").values(),
    *documents.shipped("hardware/kernels").values(),
    *documents.shipped("hardware/collectives").values(),
    *documents.shipped("hardware/software").values(),
]
FASTER = {"gpu": {"scale_up": {"bandwidth": "450 GB/s"}}}


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every figure and every loose number of a file."""
    if isinstance(node, dict) and "value" not in node:
        for key, inner in node.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(node, dict | int | float):
        yield path, node


def problems_of(text: str, tmp_path: Path, override: dict[str, Any] | None = None) -> list[str]:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_hardware(path, override)
    return [str(problem).replace(str(path), "mine.yaml") for problem in caught.value.problems]


@pytest.fixture(scope="module")
def h800_text() -> str:
    return documents.shipped("hardware")["h800"].read_text()


def test_the_shipped_profiles_are_the_promised_ones() -> None:
    assert list_hardware() == PROFILES
    assert list_kernels() == KERNELS


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_under_its_own_name(name: str) -> None:
    hardware = load_hardware(name)
    assert hardware.name == name
    assert hardware.parameters


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_loads_under_its_own_name(name: str) -> None:
    kernel = load_kernel(name)
    assert kernel.name == name
    assert kernel.measured_on is None or kernel.measured_on in PROFILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_number_of_a_file_has_a_grade_and_a_public_source(path: Path) -> None:
    tree = documents.load(path).tree
    sources = tree.pop("sources")
    tree.pop("year", None)
    cited = set()
    for where, leaf in leaves(tree):
        assert isinstance(leaf, dict), f"{where}: a loose number"
        assert leaf["grade"] in ("datasheet", "paper", "measured", "derived", "assumed"), where
        assert leaf.get("source") or leaf["grade"] == "assumed", where
        assert leaf["grade"] != "derived" or leaf["from"], where
        assert leaf["grade"] != "assumed" or leaf["why"], where
        cited |= {leaf["source"]} if "source" in leaf else set()
    assert cited == set(sources), "a citation that no figure uses, or the reverse"


@pytest.mark.parametrize("name", PROFILES)
def test_every_parameter_reads_back_from_what_it_shows(name: str) -> None:
    for row in load_hardware(name).parameters:
        assert units.parse(row.shown, row.dimension) == row.value
        if row.path in ("gpu.scale_up.bandwidth", "gpu.pcie.bandwidth", "nic.bandwidth"):
            assert row.per == "direction"


@pytest.mark.parametrize("name", PROFILES)
def test_memory_streams_below_its_peak_and_integer_rates_double_by_halving_the_bits(name: str) -> None:
    gpu = load_hardware(name).gpu
    assert 0 < gpu.hbm.efficiency_fraction < 1
    ultra = {"b300": 14000 / 2250, "gb300-nvl72": 6}  # Blackwell Ultra has more of FP4 alone
    for dtype, factor in (("fp8", 2), ("int8", 2), ("fp4", ultra.get(name, 4))):
        rate = getattr(gpu.dense_flops, dtype)
        assert rate is None or rate == pytest.approx(factor * gpu.dense_flops.bf16, rel=1e-3)


def test_h800_holds_the_published_rates_in_si() -> None:
    h800 = load_hardware("h800")
    assert h800.gpu.scale_up.bandwidth_bytes_per_s == 200e9
    assert h800.nic is not None
    assert h800.nic.bandwidth_bytes_per_s == 50e9
    assert h800.gpu.hbm.bandwidth_bytes_per_s == 3350e9
    assert h800.gpu.dense_flops.peak("fp8") == pytest.approx(1978.9e12)
    # 132 SMs x 4096 dense BF16 FLOP per clock
    assert h800.gpu.sms * 4096 * h800.gpu.tensor_clock_hz == pytest.approx(
        h800.gpu.dense_flops.bf16, rel=1e-3
    )
    assert h800.gpu_hour_usd == 2.0


def without_what_no_simulation_reads(hardware: Hardware) -> Hardware:
    """Names, provenance, price, and FP64, which only the export rules read."""
    gpu = replace(hardware.gpu, dense_flops=replace(hardware.gpu.dense_flops, fp64=None))
    return replace(hardware, name="", title="", year=0, sources={}, parameters=(), cost=None, gpu=gpu)


def test_an_h800_with_the_nvlink_of_an_h100_is_an_h100() -> None:
    h800, h100 = load_hardware("h800", FASTER), load_hardware("h100")
    assert h800.gpu.scale_up == h100.gpu.scale_up
    assert without_what_no_simulation_reads(h800) == without_what_no_simulation_reads(h100)


@pytest.mark.parametrize(
    "override",
    [
        FASTER,
        {"gpu.scale_up.bandwidth": "450 GB/s"},
        {"gpu": {"scale_up.bandwidth": "3600 Gb/s"}},
        {"gpu": {"scale_up": {"bandwidth": {"value": "450 GB/s", "per": "direction", "source": "own test"}}}},
        {"gpu": {"scale_up": {"bandwidth": "450 GB/s", "domain": 8}}},
        documents.loads("gpu: {scale_up: {bandwidth: 450 GB/s}}", "scenario.yaml"),
    ],
)
def test_an_override_may_be_a_quantity_a_figure_or_a_branch(override: Any) -> None:
    hardware = load_hardware("h800", override)
    row = hardware.parameter("gpu.scale_up.bandwidth")
    assert hardware.gpu.scale_up.bandwidth_bytes_per_s == 450e9
    assert (row.grade, row.per) == ("override", "direction")
    assert hardware.parameter("nic.bandwidth").grade == "paper"


def test_null_takes_an_optional_branch_away() -> None:
    assert load_hardware("h800", {"nic": None}).nic is None


def test_an_override_leaves_the_profile_as_it_was() -> None:
    load_hardware("h800", FASTER)
    assert load_hardware("h800").gpu.scale_up.bandwidth_bytes_per_s == 200e9


def test_gigabits_and_gigabytes_differ_by_eight() -> None:
    fast, slow = (
        load_hardware("h800", {"nic": {"bandwidth": text}}).nic for text in ("400 GB/s", "400 Gb/s")
    )
    assert fast is not None
    assert slow is not None
    assert fast.bandwidth_bytes_per_s == 8 * slow.bandwidth_bytes_per_s


@pytest.mark.parametrize("wrong", ["400 gb/s", "400", 400, "400 GB", True, "-1 GB/s", "0 GB/s", [400]])
def test_a_rate_without_a_unit_of_rates_is_refused_at_its_place(wrong: object) -> None:
    override = documents.loads("nic:\n  bandwidth: 400 Gb/s\n", "scenario.yaml")
    override.tree["nic"]["bandwidth"] = wrong
    with pytest.raises(InputError, match=r"scenario\.yaml:2:\d+: nic\.bandwidth"):
        load_hardware("h800", override)


def test_a_rate_of_both_directions_is_refused(h800_text: str, tmp_path: Path) -> None:
    text = h800_text.replace(
        "bandwidth: {value: 200 GB/s, per: direction", "bandwidth: {value: 400 GB/s, per: both"
    )
    (problem,) = problems_of(text, tmp_path)
    assert "gpu.scale_up.bandwidth.per: got 'both'; wanted one of: direction" in problem


def test_an_unknown_key_names_the_nearest_one(h800_text: str, tmp_path: Path) -> None:
    (problem,) = problems_of(h800_text, tmp_path, {"gpu": {"scale_up": {"bandwith": "450 GB/s"}}})
    assert "gpu.scale_up.bandwith" in problem
    assert "did you mean bandwidth?" in problem


def test_a_number_without_a_source_is_refused_with_line_and_column(h800_text: str, tmp_path: Path) -> None:
    line = next(i for i, text in enumerate(h800_text.splitlines(), 1) if text.startswith("  sms:"))
    text = h800_text.replace(
        "sms: {value: 132, grade: measured, source: profile_data}", "sms: {value: 132, grade: measured}"
    )
    (problem,) = problems_of(text, tmp_path)
    assert problem.startswith(f"mine.yaml:{line}:8: gpu.sms: got no source; wanted the key 'source'")


def test_all_problems_of_a_file_come_together(h800_text: str, tmp_path: Path) -> None:
    text = h800_text
    for old, new in (
        ("sms: {value: 132, grade: measured, source: profile_data}", "sms: 132"),
        ("{value: 814 mm2, grade: derived", "{value: 814 mm, grade: derived"),
        ("from: the same SXM5 board", "why: the same SXM5 board"),
        ("source: deepseek_v3}", "source: deepsek_v3}"),
        (
            "grade: assumed\n      source: isca25\n      why: a store",
            "grade: assumed\n      source: isca25\n      from: a store",
        ),
        ("nodes_per_leaf: {value: 32", "nodes_per_leaf: {value: 32.5"),
        ("kind: rail_optimized", "kind: rail_optimised"),
    ):
        assert old in text
        text = text.replace(old, new)
    found = "\n".join(problems_of(text, tmp_path))
    for wanted in (
        "gpu.sms: got 132; wanted a mapping",
        "gpu.die_area.value: got '814 mm'; wanted an area",
        "gpu.power.tdp: got grade derived without 'from'",
        "cost.gpu_hour.source: got 'deepsek_v3'",
        "did you mean deepseek_v3?",
        "gpu.scale_up.latency: got grade assumed without 'why'",
        "fabric.nodes_per_leaf.value: got 32.5; wanted a whole number",
        "did you mean rail_optimized?",
    ):
        assert wanted in found
    assert all(problem.startswith("mine.yaml:") for problem in found.splitlines())


def test_a_file_may_not_grade_its_own_figures_as_overrides(h800_text: str, tmp_path: Path) -> None:
    text = h800_text.replace("grade: measured, source: profile_data", "grade: override, source: profile_data")
    (problem,) = problems_of(text, tmp_path)
    assert "gpu.sms.grade" in problem


def test_a_quantity_in_place_of_a_branch_is_one_problem() -> None:
    with pytest.raises(InputError) as caught:
        load_hardware("h800", {"gpu": {"scale_up": "450 GB/s"}})
    (problem,) = caught.value.problems
    assert problem.key == "gpu.scale_up"


def test_a_leaf_cannot_have_more_nodes_than_ports() -> None:
    with pytest.raises(InputError, match=r"fabric\.nodes_per_leaf: got 65; wanted at most 64"):
        load_hardware("h800", {"fabric": {"nodes_per_leaf": 65}})


def test_a_profile_may_be_a_file_of_ones_own(h800_text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(h800_text.replace("name: h800", "name: mine"))
    assert load_hardware(path).name == "mine"
    assert load_hardware("./mine.yaml", near=tmp_path).name == "mine"


def test_an_unknown_profile_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"'h8000'.*h800.*did you mean h800\?"):
        load_hardware("h8000")


def test_a_dtype_that_a_gpu_lacks_is_infeasible_and_a_mistyped_one_is_bad_input() -> None:
    flops = load_hardware("a100").gpu.dense_flops
    with pytest.raises(InfeasibleError, match="no fp8"):
        flops.peak("fp8")
    with pytest.raises(InputError, match="did you mean bf16"):
        flops.peak("bf61")


def test_the_h800_differs_from_the_h100_only_by_what_was_cut_and_by_its_price() -> None:
    sheet = describe(load_hardware("h800"), load_hardware("h100"))
    differences = {row.path: row.ratio for row in sheet.differences}
    assert set(differences) == {"gpu.dense_flops.fp64", "gpu.scale_up.bandwidth", "cost.gpu_hour"}
    assert differences["gpu.scale_up.bandwidth"] == pytest.approx(200 / 450)
    assert not describe(load_hardware("h100"), load_hardware("h100")).differences
    assert "not legal advice" in sheet.note


@pytest.mark.parametrize(
    ("name", "override", "achieved", "grade"),
    [
        ("h800", None, 135e9, "measured"),
        ("h100", None, 303.75e9, "derived"),
        ("h800", FASTER, 303.75e9, "derived"),
        ("h20", None, 303.75e9, "derived"),
    ],
)
def test_the_achieved_rate_is_the_same_fraction_of_every_peak(
    name: str, override: Any, achieved: float, grade: str
) -> None:
    hardware = load_hardware(name, override)
    (row,) = (
        row
        for row in describe(hardware).achieved
        if (row.kernel, row.link, row.direction) == ("two_hop", "gpu.scale_up.bandwidth", "dispatch")
    )
    assert row.peak_bytes_per_s == hardware.gpu.scale_up.bandwidth_bytes_per_s
    assert row.achieved_bytes_per_s == pytest.approx(achieved)
    assert row.grade == grade


# DeepEP's low-latency tables, 128 tokens, top 8. These rows set the figures, so this guards the arithmetic of
# the file and says nothing of how well the model predicts.


def test_fixed_time_grows_by_doublings_of_nodes_and_by_remote_peers() -> None:
    kernel = load_kernel("nccl")
    near = kernel.fixed_s("dispatch", uses_nic=False, num_nodes=1, num_remote_peers=0)
    # ISCA'25 Figure 6: an all-to-all of 16 GPUs takes 33 us however small it is
    assert kernel.fixed_s("dispatch", uses_nic=True, num_nodes=2, num_remote_peers=8) == pytest.approx(
        33e-6, rel=0.01
    )
    assert near == pytest.approx(8e-6)
    kernel = load_kernel("low_latency")
    times = [kernel.fixed_s("dispatch", uses_nic=True, num_nodes=n, num_remote_peers=0) for n in (1, 2, 4, 8)]
    growths = [later - sooner for sooner, later in pairwise(times)]
    assert growths == pytest.approx([1.63e-6] * 3)


def test_kernels_that_nobody_timed_beside_compute_are_not_slowed_by_it() -> None:
    assert [load_kernel(name).slowdown("dispatch") for name in ("nccl", "two_hop")] == [1.0, 1.38]
