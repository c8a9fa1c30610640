"""Kinds of all-to-all kernels: one table knows them by name, and what follows from a kind is right for each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from sim.cluster.kernels import DEFAULTS, KindName, generations, list_kernels, load_kernel
from sim.errors import InputError
from sim.scenario.routing import KernelSpec
from sim.schedule.collectives import KINDS, record_bytes

SIM = Path(__file__).resolve().parents[2] / "sim"
NAMES = {*KINDS, *list_kernels()}
HOMES = {
    "answers/size.py": "writes a scenario",
    "errors.py": "knows what other stacks call ours",
    "runs/predictor.py": "names the kernel of a pass that it predicts",
    "cluster/kernels.py": "declares the kinds and the default generation of each",
    "schedule/collectives.py": "the table itself",
    "scenario/routing.py": "declares the options of each kind",
    "validation/validate.py": "groups of published values, some named like the kernel that they are about",
}
"""Where a name may stand as a string. What loads one generation by its name may do so anywhere."""


def named(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every string that is the name of a kernel, but for what is loaded by its name."""
    loaded = {
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "load_kernel"
        for argument in call.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in NAMES and id(node) not in loaded:
            yield node


@pytest.mark.parametrize("path", sorted(SIM.rglob("*.py")), ids=lambda path: str(path.relative_to(SIM)))
def test_no_code_asks_for_a_kernel_by_its_name(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asked = [node for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.match_case)]
    compared = [constant.lineno for node in asked for constant in named(node)]
    assert not compared, "what differs by kind goes through collectives.KINDS"
    if str(path.relative_to(SIM)) not in HOMES:
        assert not [constant.lineno for constant in named(tree)]


def test_every_kind_is_declared_everywhere() -> None:
    (union, _) = get_args(KernelSpec)
    options = [get_args(spec.model_fields["kind"].annotation)[0] for spec in get_args(union)]
    assert list(KINDS) == list(DEFAULTS) == list(get_args(KindName)) == options


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_generation_is_of_its_kind(kind: str) -> None:
    assert DEFAULTS[kind] in generations(kind)
    assert load_kernel(kind) == load_kernel(DEFAULTS[kind])


@pytest.mark.parametrize(
    ("kernel", "direction", "dtype", "expected"),
    [
        ("two_hop", "dispatch", "fp8", 7472),
        ("two_hop", "dispatch", "bf16", 14416),
        ("two_hop", "combine", "bf16", 14384),
        ("low_latency", "dispatch", "fp8", 7408),
        ("low_latency", "combine", "bf16", 14336),
        ("flat", "dispatch", "fp8", 7392),
        ("nccl", "dispatch", "bf16", 14336),
    ],
)
def test_bytes_of_a_record(kernel: str, direction: str, dtype: str, expected: int) -> None:
    """Hidden 7168, top-8; DeepEP csrc/kernels/legacy/internode.cu and internode_ll.cu."""
    assert record_bytes(kernel, direction, dtype, 7168, 8) == expected


@pytest.mark.parametrize(("hidden", "expected"), [(5120, 5280), (4096, 4224), (6144, 6336), (2880, 2972)])
def test_fp8_payload_has_a_scale_for_every_128_elements_or_part_of_it(hidden: int, expected: int) -> None:
    assert record_bytes("flat", "dispatch", "fp8", hidden, 8) == expected


def test_logfmt10_combine_is_about_ten_sixteenths_of_bf16() -> None:
    compressed = record_bytes("low_latency", "combine", "logfmt10", 7168, 8)
    assert compressed == 7168 * 10 // 8 + 4 * 56
    assert compressed / record_bytes("low_latency", "combine", "bf16", 7168, 8) == pytest.approx(
        10 / 16, abs=0.02
    )


def test_an_unknown_kind_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean two_hop"):
        record_bytes("twohop", "dispatch", "fp8", 7168, 8)
    with pytest.raises(InputError, match="did you mean combine"):
        record_bytes("two_hop", "combin", "bf16", 7168, 8)
