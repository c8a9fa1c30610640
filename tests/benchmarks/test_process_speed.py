"""CPU seconds of whole commands, as a person waits for them. Run with `pytest -o addopts= -s tests/benchmarks/test_process_speed.py`.

Each is a process of its own, once before it counts so that numba's cache and bytecode are there; the fewest seconds of a few
rounds count, as machines are shared. Bars and aims are on a quiet one; what was reached stands in docs/limits.md.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BALANCED = [f"--set=workload.skew.{key}=0" for key in ("routed_load", "kernel_jitter", "gpu_spread")]
STEP = ["run", "v3-training-h800", *BALANCED, "--set=expect={}"]
FLOWS = """\
name: flows
cluster: {fabric: {kind: leaf_spine, hosts: HOSTS, hosts_per_leaf: HOSTS, spines: 1, link: 400 Gb/s}}
fidelity: {flow: {gather: GATHER}}
workload: {kind: flows, file: flows.csv}
"""
CASES: dict[str, tuple[list[str], str, float, float, int]] = {  # command, scenario, bar, aim [s], rounds
    "run h800-vs-h100": (["run", "h800-vs-h100"], "", 1.5, 1.0, 3),
    "run v3-decode-ep128": (["run", "v3-decode-ep128"], "", 0.9, 0.6, 3),
    "run serving-example": (["run", "serving-example"], "", 6.0, 3.0, 1),
    "balanced V3 step": (STEP, "", 0.9, 0.6, 3),
    "balanced V3 step, 16,384 GPUs": ([*STEP, "--set=cluster.nodes=2048", "--no-report"], "", 3.0, 1.0, 2),
    "balanced V3 step, 98,304 GPUs": ([*STEP, "--set=cluster.nodes=12288", "--no-report"], "", 15.0, 5.0, 1),
    "16,256 flows between 128 hosts": (["run", "--no-report"], FLOWS, 1.5, 0.6, 2),
    "65,280 flows between 256 hosts": (["run", "--no-report"], FLOWS, 8.0, 2.0, 1),
}  # fmt: skip


def flow_table(hosts: int) -> str:
    """Unequal flows between all pairs of hosts."""
    sizes = np.random.default_rng(0).lognormal(15.0, 1.0, (hosts, hosts)).round().astype(int)
    rows = [
        f"{src * hosts + dst + 1},{src},{dst},{sizes[src, dst]},0"
        for src in range(hosts)
        for dst in range(hosts)
        if src != dst
    ]
    return "\n".join(["flow_id,src,dst,bytes,start_us", *rows]) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_a_command(benchmark: Any, tmp_path: Path, case: str) -> None:
    command, text, bar_s, aim_s, rounds = CASES[case]
    if "hosts" in case:
        hosts = int(case.split()[-2])
        (tmp_path / "flows.csv").write_text(flow_table(hosts))
        text = text.replace("HOSTS", str(hosts)).replace("GATHER", "0.1 %")
    if text:
        (tmp_path / "mine.yaml").write_text(text)
        command = [*command[:1], "mine.yaml", *command[1:]]
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    cpu_s: list[float] = []

    def run() -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "sim", *command, "--out", str(tmp_path / "out")],
            check=True, capture_output=True, cwd=tmp_path, env=environment,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    benchmark.pedantic(run, rounds=rounds, warmup_rounds=1 if rounds > 1 else 0)
    benchmark.extra_info |= {"bar_s": bar_s, "aim_s": aim_s, "cpu_s": min(cpu_s)}
    print(f"\n{case}: {min(cpu_s):.2f} CPU s (bar {bar_s}, aim {aim_s})")
