"""Time the kernels that MoE models are made of on the GPU of this machine; prints a file for `scenarios/published/`.

    python tools/measure_gpu.py h200 > kernels_h200.yaml     (PyTorch 2.10 or newer with CUDA; two minutes)

What: GEMM in BF16 and FP8, grouped GEMM, weight gradients, the output head, flash attention, kernels bound by memory;
then rate, clock and power under seconds of load, and the names of the kernels that the libraries chose, which hold their
tiles. CONTRIBUTING says what to do with the tables; moesim itself never runs this.

How: a kernel runs back to back in a CUDA graph, over as many sets of random operands as outgrow the L2 cache (small ones
stay in it); the time is the mean over seven replays, so it holds the kernel and the gap to the next, not Python. Beside
it stands the mean clock of the SMs meanwhile: their cycle counters against the timer of the GPU. Tensor kernels soon draw
all the power there is and slow down, within a millisecond and again within a second, so their time means little without
the clock. The GPU rests before every row. Attention is launched from Python, which long kernels hide.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gpu_kernels as kernels
import torch
from gpu_kernels import Case
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

L2_BYTES = 60e6
REPLAYS = 7
REST_S, SPAN_S = 0.1, 4.0

NK = ((2112, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048))
"""Outputs and inputs of DeepSeek-V3's projections, experts last."""
ROWS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
GROUPS = ((4, 8192), (8, 4096), (8, 1024), (8, 256), (8, 64), (32, 1024), (32, 128), (32, 16), (2, 512))
"""Experts of a rank and rows of each."""
CORES = tuple(
    (tokens, heads, qk, 128) for tokens in (2048, 4096, 8192, 16384) for heads, qk in ((128, 192), (64, 128))
)

# --- time and clock ------------------------------------------------------------------------------------------------

_STAMP = """
extern "C" __global__ void stamp(longlong2* out) {
    unsigned sm;
    long long cycles, ns;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles));
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    out[sm] = make_longlong2(cycles, ns);
}
"""


class Clock:
    """Mean clock of the SMs between two moments of a stream."""

    def __init__(self) -> None:
        self._kernel = torch.cuda._compile_kernel(_STAMP, "stamp")
        self._blocks = 4 * torch.cuda.get_device_properties(0).multi_processor_count

    def stamp(self) -> torch.Tensor:
        """Cycles and nanoseconds of every SM, [SMs, 2], when the stream comes to this point."""
        out = torch.zeros(1024, 2, device="cuda", dtype=torch.int64)
        self._kernel(grid=(self._blocks, 1, 1), block=(1, 1, 1), args=[out])
        return out

    @staticmethod
    def hertz(begin: torch.Tensor, end: torch.Tensor) -> float:
        """Mean clock between two stamps, once both are there [Hz]."""
        seen = (begin[:, 1] > 0) & (end[:, 1] > 0)
        cycles, ns = (end - begin)[seen].double().unbind(1)
        return float((cycles / ns).median()) * 1e9


def event() -> torch.cuda.Event:
    """An event with a time."""
    return torch.cuda.Event(enable_timing=True)


def timed(clock: Clock, case: Case) -> tuple[float, float]:
    """Time of one launch [s] and clock of the SMs meanwhile [Hz], means over the replays."""
    sets = [case.make() for _ in range(max(1, min(case.calls, int(2 * L2_BYTES / case.size) + 1)))]

    def launch() -> None:
        for i in range(case.calls):
            case.run(*sets[i % len(sets)])

    with torch.cuda.stream(torch.cuda.Stream()):
        for one in sets[:2]:
            case.run(*one)
    torch.cuda.synchronize()
    replay = launch
    if case.graphed:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            launch()
        replay = graph.replay
    torch.cuda.synchronize()
    time.sleep(REST_S)
    replay()
    begin, marks = clock.stamp(), []
    for _ in range(REPLAYS):
        start, stop = event(), event()
        start.record()
        replay()
        stop.record()
        marks.append((start, stop))
    end = clock.stamp()
    torch.cuda.synchronize()
    took_s = sum(start.elapsed_time(stop) for start, stop in marks) * 1e-3
    return took_s / (REPLAYS * case.calls), clock.hertz(begin, end)


def kernel_names(case: Case) -> str:
    """What one launch runs on the GPU, by the names of its kernels."""
    operands = case.make()
    case.run(*operands)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        case.run(*operands)
        torch.cuda.synchronize()
    ran = {one.name[:90] for one in seen.events() if one.device_type == DeviceType.CUDA}
    return " + ".join(sorted(ran))


# --- seconds of load -----------------------------------------------------------------------------------------------


def nvidia_smi(figure: str) -> str:
    """What the driver says of the first GPU."""
    asked = ["nvidia-smi", "--id=0", f"--query-gpu={figure}", "--format=csv,noheader,nounits"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def sustained(clock: Clock, case: Case, flop: float) -> Iterator[tuple[float, float, float, float]]:
    """Moment [s], clock [Hz], rate [FLOP/s] and power [W] of one kernel launched over and over; at first without power."""
    operands = case.make()
    case.run(*operands)
    torch.cuda.synchronize()
    time.sleep(1.5)
    begun = time.monotonic()
    while (at := time.monotonic() - begun) < SPAN_S:
        calls = 15 if at < 0.4 else 200
        first, start, stop = clock.stamp(), event(), event()
        start.record()
        for _ in range(calls):
            case.run(*operands)
        stop.record()
        last = clock.stamp()
        drawn = float(nvidia_smi("power.draw")) if at >= 0.4 else 0.0  # asked while it runs
        torch.cuda.synchronize()
        rate = calls * flop / (start.elapsed_time(stop) * 1e-3)
        yield time.monotonic() - begun, clock.hertz(first, last), rate, drawn


# --- all of it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Shapes of one kernel; `said` are the keys that tell moesim what to compare with."""

    name: str
    make: Callable[..., Case]
    said: dict[str, str]
    columns: tuple[str, ...]
    shapes: tuple[tuple[float, ...], ...]
    clocked: bool = True


def tables() -> Iterator[Table]:
    """What is measured."""
    mnk, kmn, tnk, emnk = ("m", "n", "k"), ("k", "m", "n"), ("t", "n", "k"), ("experts", "m", "n", "k")
    dense = tuple((m, n, k) for n, k in NK for m in ROWS)
    grouped = tuple((e, m, n, k) for e, m in GROUPS for n, k in NK[-2:])
    weights = tuple((t, n, k) for n, k in NK for t in (1024, 4096, 8192))
    head = (4096, 129280, 7168)

    def gemm(kernel: str, dtype: str, **more: str) -> dict[str, str]:
        return {"kernel": kernel, "dtype": dtype, "generation": "cublas_13", **more}

    unknown = {"counted": "false"}
    yield Table("gemm_bf16", kernels.gemm_bf16, gemm("dense", "bf16"), mnk, dense)
    yield Table("head_bf16", kernels.gemm_bf16, gemm("dense", "bf16"), mnk, (head, (4096, 7168, 129280)))
    yield Table("weight_bf16", kernels.weight_bf16, gemm("dense", "bf16"), kmn, (*weights, head))
    yield Table("weight_bf16_added", kernels.weight_bf16_added, gemm("weight", "bf16"), tnk, weights)
    yield Table("grouped_bf16", kernels.grouped_bf16, gemm("masked", "bf16"), emnk, grouped)
    for run in (kernels.attention_forward, kernels.attention_backward):
        for end, counted, cores in (("", {}, CORES[2:]), ("_short", unknown, CORES[:2])):
            said = {"kernel": run.__name__, **counted}
            yield Table(run.__name__ + end, run, said, ("sequence", "heads", "qk", "v"), cores)
    for name, run in kernels.STREAMING.items():
        known = name in ("copy", "scale", "add", "read")
        for end, first, last in (("", 6, 13), ("_small", -3, 6)):
            said = {"kernel": "stream", **({} if known and not end else unknown)}
            mib = tuple((2.0**i,) for i in range(first, last))
            yield Table(name + end, run, said, ("mib",), mib, clocked=False)
    yield Table("gemm_fp8_blocks", kernels.gemm_fp8_blocks, gemm("dense", "fp8"), mnk, dense)
    written = gemm("weight", "fp8", added="false")
    yield Table("weight_fp8_blocks", kernels.weight_fp8_blocks, written, tnk, weights)
    yield Table("gemm_fp8_rows", kernels.gemm_fp8_rows, gemm("dense", "fp8") | unknown, mnk, dense)
    yield Table("grouped_fp8_rows", kernels.grouped_fp8_rows, gemm("masked", "fp8") | unknown, emnk, grouped)


def attempted(table: Table, tell: Callable[[tuple[float, ...], Case], str], mark: str) -> Iterator[str]:
    """A line for each shape; `mark` and a reason where this machine or this PyTorch has it not."""
    for shape in table.shapes:
        try:
            yield tell(shape, table.make(*shape))
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            yield f"{mark} {table.name} {shape}: {str(error).splitlines()[0][:160]}"
        torch.cuda.empty_cache()


def measured(clock: Clock, table: Table, source: str) -> Iterator[str]:
    """The lines of one table."""

    def tell(shape: tuple[float, ...], case: Case) -> str:
        took_s, hertz = timed(clock, case)
        clocked = f", {hertz / 1e9:.3f}" if table.clocked else ""
        return f"      - [{', '.join(f'{x:g}' for x in shape)}, {took_s * 1e6:.5g}{clocked}]"

    yield f"  - name: {table.name}"
    yield f"    source: {source}"
    yield from (f"    {key}: {value}" for key, value in table.said.items())
    yield f"    columns: [{', '.join((*table.columns, 'us', *(('ghz',) if table.clocked else ())))}]"
    yield "    validation:"
    yield from attempted(table, tell, "      #")


def preamble(name: str) -> str:
    """What stands before the tables."""
    gpu = torch.cuda.get_device_properties(0)
    driver = nvidia_smi("driver_version")
    return f"""\
# {gpu.name}: {gpu.multi_processor_count} SMs, {gpu.L2_cache_size} bytes of L2, {gpu.total_memory} of memory
group: kernels_{name}
title: Compute kernels measured on {name}
bar: {{mean: 8 %}}
hardware: {name}
sources:
  measured_{name}:
    title: Kernels of PyTorch on {gpu.name}
    where: tools/measure_gpu.py, PyTorch {torch.__version__}, CUDA {torch.version.cuda}, driver {driver}
    date: {time.strftime("%Y-%m-%d")}
    confidence: measured
tables:"""


def main() -> None:
    """Print everything; progress goes to standard error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="the profile of this GPU in hardware/, such as h200")
    name = parser.parse_args().name
    torch.manual_seed(0)
    clock, begun = Clock(), time.monotonic()
    print(preamble(name))
    for table in tables():
        print(*measured(clock, table, f"measured_{name}"), sep="\n", flush=True)
        print(f"{time.monotonic() - begun:6.1f} s  {table.name}", file=sys.stderr)
    n, core = 8192, (4096, 128, 192, 128)
    for case, flop in (
        (kernels.gemm_bf16(n, n, n), 2.0 * n**3),
        (kernels.gemm_fp8_rows(n, n, n), 2.0 * n**3),
        (kernels.attention_forward(*core), 1.0 * core[0] ** 2 * core[1] * (core[2] + core[3])),
    ):
        print("# Under load: second, GHz, TFLOP/s, W")
        for at, hertz, rate, drawn in sustained(clock, case, flop):
            print(f"#   {at:.2f} {hertz / 1e9:.3f} {rate / 1e12:.1f} {drawn:.0f}", flush=True)
    print("# Kernels")
    for table in tables():
        print(*attempted(table, lambda shape, case: f"#   {shape}: {kernel_names(case)}", "#"), sep="\n")


if __name__ == "__main__":
    main()
