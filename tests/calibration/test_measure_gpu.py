"""The script that measures a GPU prints what the project reads; PyTorch and a GPU are stand-ins here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from sim import documents, schemas
from sim.validation import published
from sim.validation.kernels import KernelFigures, kernel_rows

TOOLS = Path(__file__).resolve().parents[2] / "tools"
STAND_INS = (
    "torch",
    "torch.autograd",
    "torch.nn",
    "torch.nn.attention",
    "torch.nn.functional",
    "torch.profiler",
)
H200 = published.load("kernels_h200", KernelFigures)[0]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    torch = MagicMock()
    gpu = torch.cuda.get_device_properties.return_value
    gpu.name, gpu.multi_processor_count, gpu.L2_cache_size, gpu.total_memory = "GPU", 132, 62914560, 1 << 37
    torch.__version__, torch.version.cuda = "2.11.0", "13.0"
    for name in STAND_INS:
        monkeypatch.setitem(sys.modules, name, torch if name == "torch" else MagicMock())
    monkeypatch.syspath_prepend(str(TOOLS))
    module = importlib.import_module("measure_gpu")
    monkeypatch.setattr(module, "nvidia_smi", lambda figure: "580")
    monkeypatch.setattr(module, "timed", lambda clock, case: (12.34e-6, 1.5e9))
    yield module
    for name in ("measure_gpu", "gpu_kernels"):
        sys.modules.pop(name)


def printed(script: Any) -> str:
    lines = [line for table in script.tables() for line in script.measured(None, table, "measured_h200")]
    return "\n".join((script.preamble("h200"), *lines)) + "\n"


def test_what_is_printed_is_a_group_of_kernels(script: Any, tmp_path: Path) -> None:
    path = tmp_path / "kernels_h200.yaml"
    path.write_text(printed(script), encoding="utf-8")
    figures = schemas.check(documents.load(path), KernelFigures)
    assert figures.hardware == "h200"
    assert {table.source for table in figures.tables} == set(figures.sources)
    assert all(table.validation and not table.calibration for table in figures.tables)
    assert {row[table.columns.index("us")] for table in figures.tables for row in table.validation} == {12.34}


def test_the_shipped_rows_are_those_that_the_script_measures(script: Any, tmp_path: Path) -> None:
    path = tmp_path / "kernels_h200.yaml"
    path.write_text(printed(script), encoding="utf-8")

    def shapes(figures: KernelFigures) -> set[tuple[str, tuple[float, ...]]]:
        return {
            (
                kernel(table.name),
                tuple(v for c, v in zip(table.columns, row, strict=True) if c not in ("us", "ghz")),
            )
            for table in figures.tables
            for row in (*table.calibration, *table.validation)
        }

    def kernel(name: str) -> str:
        for end in ("_short", "_small", "_engine"):
            name = name.removesuffix(end)
        return name

    assert shapes(schemas.check(documents.load(path), KernelFigures)) == shapes(H200)
    assert len(shapes(H200)) == len(kernel_rows("kernels_h200")) == 383


def test_a_shape_that_a_machine_has_not_is_a_comment(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(clock: object, case: object) -> tuple[float, float]:
        raise RuntimeError("no kernel\nfor this shape")

    monkeypatch.setattr(script, "timed", refuse)
    table = next(iter(script.tables()))
    lines = list(script.measured(None, table, "here"))
    assert len(lines) > len(table.shapes)
    assert all(line.startswith("      # gemm_bf16 (") for line in lines[-len(table.shapes) :])
    assert lines[-1].endswith("no kernel")


def test_operands_of_a_streaming_kernel_add_up_to_the_bytes_that_it_moves(script: Any) -> None:
    kernels = importlib.import_module("gpu_kernels")
    drawn: list[int] = []

    def draw(*shape: int, **_: object) -> MagicMock:
        size = 2
        for length in shape:
            size *= length
        drawn.append(size)
        return MagicMock()

    kernels.torch.randn = draw
    for name, written in (
        ("copy", 0.0),
        ("scale", 0.0),
        ("add", 0.0),
        ("read", 0.0),
        ("transpose", 0.0),
        ("cast", 0.5),
    ):
        for mib in (1.0, 2.0, 64.0):
            drawn.clear()
            kernels.STREAMING[name](mib).make()
            assert sum(drawn) * (1.0 + written) == pytest.approx(mib * 2**20, rel=1e-4), name
