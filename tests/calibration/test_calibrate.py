"""Calibration on a profiler trace: times are those put into a synthetic one; any other file is refused in one line."""

from __future__ import annotations

import gzip
import json
import random
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sim import documents, limits
from sim.calibration.calibrate import Calibration, calibrate
from sim.calibration.kernel_names import BOUNDS, name_kernel, short_name
from sim.calibration.layer_pairs import EXCHANGES, PHASES
from sim.calibration.profile import profile_text
from sim.cost.measured import MeasuredCollective, TraceSource, load_profile, read_profile
from sim.errors import InputError
from sim.show.tables import calibrated
from sim.validation import validate
from sim.validation.layer_pair import PairFigures

CUT = Path(__file__).resolve().parents[1] / "data" / "layer_pairs.json"
SHIPPED = "h800-train-measured"
made = SimpleNamespace(**runpy.run_path(str(CUT.with_name("make_layer_pairs.py"))))
US = 1e-6


def near(value: float) -> Any:
    return pytest.approx(value, abs=1e-10)


@pytest.fixture(scope="module")
def cut() -> Calibration:
    return calibrate(CUT)


def write(folder: Path, tree: object, name: str = "trace.json") -> Path:
    file = folder / name
    text = json.dumps(tree).encode()
    file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return file


def only_gpu(tree: dict[str, Any]) -> dict[str, Any]:
    """The trace without its CPU side: nobody put names around the launches."""
    return tree | {"traceEvents": [event for event in tree["traceEvents"] if event["cat"] == "kernel"]}


# --- what it finds -------------------------------------------------------------------------------------------------


def test_the_cut_is_what_its_maker_writes() -> None:
    assert CUT.read_text(encoding="utf-8") == made.text()


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_takes_what_its_kernels_and_gaps_take(cut: Calibration, phase: str) -> None:
    kernels = made.PHASES[phase]
    found = cut.phases[phase]
    assert found.elapsed_s == near(made.lasts_us(kernels) * US)
    assert found.per_layer_s == near((found.elapsed_s, found.elapsed_s))
    assert found.sm_bound_s + found.memory_bound_s + found.idle_s == near(found.elapsed_s)


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "mlp(W)"])
def test_a_phase_splits_into_sm_bound_and_memory_bound(cut: Calibration, phase: str) -> None:
    kernels, found = made.PHASES[phase], cut.phases[phase]
    assert found.sm_bound_s == near(sum(one.time_us for one in kernels if one.bound == "sm") * US)
    assert found.memory_bound_s == near(sum(one.time_us for one in kernels if one.bound == "memory") * US)
    assert found.idle_s == near(made.GAP_US * (len(kernels) - 1) * US)


def test_what_runs_beside_a_gemm_of_the_second_stream_is_not_counted_twice(cut: Calibration) -> None:
    first, cast, last = made.PHASES["mlp(W)"]
    beside = (
        made.BESIDE_AFTER_US - first.time_us - made.GAP_US
    )  # of the cast, before the second stream begins
    found = cut.phases["mlp(W)"]
    gap_us = made.GAP_US + 0  # only the gap before the cast: later ones are covered by the other stream
    assert found.memory_bound_s == near(beside * US)
    assert found.idle_s == near(gap_us * US)
    assert found.operations["wgrad_gemm_fp8"].time_s == near(
        (first.time_us + last.time_us + sum(one.time_us for one in made.BESIDE)) * US
    )
    assert found.operations["cast"].time_s == near(cast.time_us * US)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_an_exchange_is_told_from_its_barrier_and_its_preparation(cut: Calibration, exchange: str) -> None:
    def of(bound: str) -> float:
        return sum(one.time_us for one in made.EXCHANGES[exchange] if one.bound == bound) * US

    found = cut.exchanges[exchange]
    assert (found.data_s, found.notify_s, found.preparation_s) == near(
        (of("transfer"), of("wait"), of("memory"))
    )
    assert found.comm_sms == 20


def test_the_backward_of_a_combine_is_a_cached_dispatch_and_the_other_way_round(cut: Calibration) -> None:
    def kind(exchange: MeasuredCollective) -> tuple[str, bool]:
        return exchange.kernel, exchange.cached

    assert [kind(cut.exchanges[name]) for name in EXCHANGES] == [
        ("dispatch", True), ("dispatch", False), ("combine", False), ("combine", False),
    ]  # fmt: skip


def test_launches_of_the_host_are_timed_from_one_to_the_next_but_for_waits(tmp_path: Path) -> None:
    """76 launches, one each 10 us, but for one that comes after the device has been waited for."""
    tree = json.loads(CUT.read_text())
    launches = [event for event in tree["traceEvents"] if event.get("cat") == "cuda_runtime"]
    for i, event in enumerate(launches):
        event["ts"] = 10 * i + 5000 * (i > 30)
    host = calibrate(write(tmp_path, tree)).host
    assert host is not None
    assert (host.num_launches, host.launch_s, host.half_s) == (76, near(10e-6), near(10e-6))
    assert host.waited_s == near(5.01e-3)
    assert calibrate(write(tmp_path, only_gpu(tree), "other.json")).host is None


def test_streams_sms_and_tokens_are_told_from_the_kernels(cut: Calibration) -> None:
    assert (cut.streams.compute, cut.streams.second_compute, cut.streams.communication) == (
        "7",
        ("23",),
        "27",
    )
    assert (cut.compute_sms, cut.comm_sms, cut.tokens_per_rank) == (112, 20, 4096)
    assert cut.phases["mlp(B)"].expert_rows == (32768, 32768)
    assert cut.phases["mlp(F)"].expert_rows == (30720, 30720)
    assert cut.phases["attn(F)"].expert_rows == ()


def test_busy_exposed_and_idle_time_make_the_span(cut: Calibration) -> None:
    both = cut.overlap
    assert both.compute_busy_s + both.exposed_comm_s + both.idle_s == near(cut.span_s)
    assert both.comm_busy_s == near(both.both_s + both.exposed_comm_s)
    assert sum(one.share_fraction for one in cut.classes) == pytest.approx(1.0)
    assert sum(one.num_kernels for one in cut.classes) == cut.num_kernels
    assert {one.bound for one in cut.classes} <= {"sm", "memory", "transfer", "wait"}


def test_without_named_ranges_marker_kernels_give_the_same_phases(cut: Calibration, tmp_path: Path) -> None:
    found = calibrate(write(tmp_path, only_gpu(made.build())))
    assert (cut.cut_by, found.cut_by) == ("ranges", "markers")
    assert found.phases == cut.phases
    assert found.exchanges == cut.exchanges


def test_gzip_order_of_events_clock_and_stream_numbers_change_nothing(
    cut: Calibration, tmp_path: Path
) -> None:
    tree = made.build()
    for event in tree["traceEvents"]:
        event["ts"] += 12_345
        event["dur"] = float(event["dur"])
        if "stream" in event.get("args", {}):
            event["args"]["stream"] += 100
    random.Random(0).shuffle(tree["traceEvents"])
    found = calibrate(write(tmp_path, tree, "trace.json.gz"))
    assert found.phases.keys() == cut.phases.keys()
    for name, phase in found.phases.items():
        assert phase.elapsed_s == near(cut.phases[name].elapsed_s)
        assert phase.sm_bound_s == near(cut.phases[name].sm_bound_s)
    assert found.streams.compute == "107"


def test_kernels_that_no_rule_knows_are_listed_with_their_share(tmp_path: Path) -> None:
    tree = made.build()
    strange = {"ph": "X", "cat": "kernel", "name": "void frobnicate<int>(float*)", "pid": 0, "tid": 7}
    times = [{**strange, "ts": made.ZERO_US + 10**6 + i * 1000, "dur": 500} for i in range(3)]
    tree["traceEvents"] += times
    [one] = calibrate(write(tmp_path, tree)).unnamed
    assert (one.name, one.num_kernels) == ("frobnicate<int>", 3)
    assert one.time_s == near(1500 * US)
    total_us = sum(event["dur"] for event in tree["traceEvents"] if event["cat"] == "kernel")
    assert one.share_fraction == pytest.approx(1500 / total_us)


def test_only_the_busiest_device_is_read(cut: Calibration, tmp_path: Path) -> None:
    tree = made.build()
    other = {
        "ph": "X",
        "cat": "kernel",
        "name": "gemm",
        "pid": 1,
        "tid": 7,
        "ts": 1,
        "dur": 1,
        "args": {"device": 1},
    }
    tree["traceEvents"].append(other)
    assert calibrate(write(tmp_path, tree)).span_s == near(cut.span_s)


# --- foreign traces ------------------------------------------------------------------------------------------------


def inference(tree: dict[str, Any]) -> None:
    tree["traceEvents"] = [event for event in tree["traceEvents"] if "Bwd" not in event["name"]]


def one_stream(tree: dict[str, Any]) -> None:
    for event in tree["traceEvents"]:
        event["tid"] = event["args"]["stream"] = 7


def unnamed_wgrads(tree: dict[str, Any]) -> None:
    for event in tree["traceEvents"]:
        event["name"] = event["name"].replace("_acc::", "::")


def three_exchanges(tree: dict[str, Any]) -> None:
    events = tree["traceEvents"]
    events.remove(next(event for event in events if "combine<" in event["name"]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (inference, "do not alternate"),
        (one_stream, "no stream of its own for communication"),
        (unnamed_wgrads, "no weight-gradient kernels"),
        (three_exchanges, "two dispatches and two combines"),
    ],
)
def test_a_trace_of_something_else_still_gives_totals_by_class(
    change: Callable[[dict[str, Any]], None], reason: str, tmp_path: Path
) -> None:
    tree = only_gpu(made.build())
    change(tree)
    found = calibrate(write(tmp_path, tree))
    assert found.cut_by == "none"
    assert reason in found.why_not
    assert found.classes
    assert not found.phases
    with pytest.raises(InputError, match=r"trace\.json: got .*wanted a trace of layer pairs"):
        profile_text(found, "x")


# --- bad files -------------------------------------------------------------------------------------------------------

GOOD = CUT.read_bytes()


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "an empty file"),
        (b"   \n", "an empty file"),
        (b"\xff\xfe\x00trace", "not UTF-8"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"hello: world", "text that is not JSON"),
        (b"[1, 2", "ends in the middle"),
        (b"17", "no list 'traceEvents'"),
        (b'{"a": 1, "b": 2}', "JSON with the keys 'a', 'b' and no list 'traceEvents'"),
        (b'{"traceEvents": 3}', "no list 'traceEvents'"),
        (b'{"traceEvents": []}', "0 events, none of a GPU kernel"),
        (b'[{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 1, "dur": 2}]', "none of a GPU kernel"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"traceEvents": [' + b"9" * 5000 + b"]}", "impossible number"),
        (GOOD[: len(GOOD) // 2], "a truncated file"),
        (gzip.compress(GOOD)[:-100], "a truncated file"),
        (gzip.compress(GOOD)[:400] + b"\0" * 400, "damaged gzip data"),
    ],
)
def test_a_file_that_is_no_such_trace_is_refused_in_one_line(
    content: bytes, got: str, tmp_path: Path
) -> None:
    file = tmp_path / "trace.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        calibrate(file)
    [line] = str(caught.value).splitlines()
    assert line.startswith(str(file))
    assert got in line
    assert "; wanted " in line


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_cut_anywhere_is_refused(zipped: bool, tmp_path: Path) -> None:
    whole = gzip.compress(GOOD) if zipped else GOOD.rstrip()
    file = tmp_path / "trace.json"
    for size in range(0, len(whole), len(whole) // 60):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"truncated|empty"):
            calibrate(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.json"):
        with pytest.raises(InputError, match="wanted a PyTorch profiler trace"):
            calibrate(path)


def test_a_file_too_big_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b" " * 5_000_000))
    monkeypatch.setattr(limits, "TRACE_BYTES", 1_000_000)
    with pytest.raises(InputError, match="more than 1000000 bytes when unpacked"):
        calibrate(bomb)
    monkeypatch.setattr(limits, "FILE_BYTES", 100)
    with pytest.raises(InputError, match=r"of at most 100$"):
        calibrate(bomb)


@pytest.mark.parametrize(
    ("key", "value"),
    [("ts", None), ("ts", "now"), ("dur", -1), ("dur", float("nan")), ("dur", 10**400), ("name", 3)],
)
def test_a_kernel_without_a_time_or_a_name_is_refused(key: str, value: object, tmp_path: Path) -> None:
    tree = made.build()
    tree["traceEvents"][-1][key] = value
    with pytest.raises(InputError, match="traceEvents"):
        calibrate(write(tmp_path, tree))


def test_strange_neighbours_of_kernels_are_passed_over(cut: Calibration, tmp_path: Path) -> None:
    tree = made.build()
    tree["traceEvents"] += [
        None, 3, [], {"ph": "X"}, {"ph": "i", "ts": "x"},
        {"ph": "X", "cat": "user_annotation", "name": ["attn(F)"], "ts": 1, "dur": 1},
        {"ph": "X", "cat": "cuda_runtime", "name": "x", "ts": 1e300, "dur": 1, "args": {"correlation": []}},
        {"ph": "X", "cat": ["kernel"], "name": "x"},
    ]  # fmt: skip
    tree |= {"deviceProperties": "none", "distributedInfo": [], "traceName": {"a": "\ud800"}}
    found = calibrate(write(tmp_path, tree))
    assert [one.per_layer_s for one in found.phases.values()] == [
        one.per_layer_s for one in cut.phases.values()
    ]
    assert (found.origin.gpu_sms, found.compute_sms, found.comm_sms) == (0, 0, 20)
    profile_text(found, "x").encode()


# --- profile -----------------------------------------------------------------------------------------------------------


def test_the_profile_that_is_written_is_the_profile_that_is_read(cut: Calibration) -> None:
    source = TraceSource(title="A made-up trace: 'quoted', #marked", where="nowhere", date="2025-01-01")
    document = documents.loads(profile_text(cut, "cut", source), "cut.yaml")
    found = read_profile(document)
    assert (found.source.title, found.source.where) == ("A made-up trace: 'quoted', #marked", "nowhere")
    assert (found.num_layers, found.context.compute_sms, found.context.comm_sms, found.trace.gpu_sms) == (
        2,
        112,
        20,
        132,
    )
    assert found.span_s == near(cut.span_s)
    for name in PHASES:
        assert found.phases[name].elapsed_s == near(cut.phases[name].elapsed_s)
        assert found.phases[name].operations.keys() == cut.phases[name].operations.keys()
    for name in EXCHANGES:
        assert found.exchanges[name].data_s == near(cut.exchanges[name].data_s)


def test_a_profile_that_does_not_add_up_is_refused_with_all_its_problems(cut: Calibration) -> None:
    document = documents.loads(profile_text(cut, "cut"), "cut.yaml")
    document.tree["phases"]["attn(F)"]["elapsed"] = "99 ms"
    document.tree["phases"]["mlp(B)"]["per_layer"] = ["1 ms"]
    del document.tree["exchanges"]["combine(F)"]
    with pytest.raises(InputError) as caught:
        read_profile(document)
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "sm_bound + memory_bound + idle" in text
    assert "one for each of 2 layers" in text
    assert "no combine(F)" in text


def test_an_unknown_profile_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=f"did you mean {SHIPPED}"):
        load_profile("h800-train-mesured")


def test_the_shipped_profile_is_read_and_agrees_with_the_published_trace() -> None:
    profile = load_profile(SHIPPED)
    assert (profile.trace.gpu_sms, profile.context.compute_sms, profile.context.comm_sms) == (132, 112, 20)
    assert (profile.num_layers, profile.tokens_per_rank, profile.world_size) == (4, 4096, 64)
    published = validate.load("layer_pair")
    assert isinstance(published, PairFigures)
    span_s, waits_s = profile.span_s, [one.notify_s for one in profile.exchanges.values()]
    ours = {
        "span_s": {"span": span_s},
        "phase_s": {name: one.elapsed_s for name, one in profile.phases.items()},
        "exchange_s": {name: one.data_s for name, one in profile.exchanges.items()},
        "exposed_comm_fraction": {"exposed": profile.overlap.exposed_comm_s / span_s},
        "busy_fraction": {
            "compute": profile.overlap.compute_busy_s / span_s,
            "communication": profile.overlap.comm_busy_s / span_s,
        },
    }
    said = {
        facts.quantity: {name: facts.published(name) for name in facts.values}
        for facts in published.facts
        if "waited" not in facts.values  # gaps that last, which the profile does not tell apart
    }
    waits = said.pop("barrier_wait_s")  # by layer; the profile has means by exchange
    assert sum(waits.values()) == pytest.approx(profile.num_layers * sum(waits_s), rel=2e-3)
    assert said.keys() == ours.keys()
    for quantity, values in said.items():
        assert values == pytest.approx(ours[quantity], rel=2e-3)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("void deep_ep::internode::dispatch<false, 8, false, 8192, 7>(int4*)", "dispatch"),
        ("void deep_ep::internode::dispatch<false, 8, true, 8192, 7>(int4*)", "dispatch_cached"),
        ("void deep_ep::intranode::combine<__nv_bfloat16, 8, 768, 8192>(...)", "combine"),
        ("void deep_ep::internode_ll::dispatch<true, false, 7168>(void*)", "dispatch"),
        ("void deep_ep::internode_ll::combine<7168, 9>(void*)", "combine"),
        ("void deep_ep::internode::notify_dispatch<false, 8>(int const*)", "notify"),
        ("void deep_ep::layout::get_dispatch_layout<256, 4, 8>(long const*)", "layout"),
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "collective"),
        ("void deep_gemm::fp8_gemm_kernel<4096u, 7168u, 128u>(float*)", "gemm_fp8"),
        (
            "void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, 4096u, (deep_gemm::GemmType)1>(float*)",
            "grouped_gemm_fp8",
        ),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_cublas", "gemm_bf16"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128>(Params)", "gemm_bf16"),
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNT", "gemm"),
        (
            "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128> >(Flash_fwd_params)",
            "attention_forward",
        ),
        (
            "void flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Traits>(Flash_bwd_params)",
            "attention_backward",
        ),
        ("void flash::flash_bwd_dot_do_o_kernel<true>(Flash_bwd_params)", "attention_fixup"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention_forward"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16", "attention_backward"),
        (
            "void dpsk::grouped_gemm::cuda::utils::transpose<512, 128, 4, 4>(unsigned char const*)",
            "transpose",
        ),
        ("dpsk::grouped_gemm::cuda::utils::fill_tensormaps_kernel(CUtensorMap_st)", "setup"),
        (
            "void cuda::swiglu_forward_with_weight_and_per_token_cast_to_fp8_with_channels_impl<__nv_bfloat16>(x)",
            "swiglu",
        ),
        ("void cuda::per_channel_cast_and_transpose<256, 128>(void const*)", "cast"),
        ("void vllm::rms_norm_kernel<c10::BFloat16>(c10::BFloat16*)", "norm"),
        ("triton_poi_fused_add_mul_3", "elementwise"),
        ("Memcpy DtoD (Device -> Device)", "memcpy"),
        ("frobnicate", "unknown"),
    ],
)
def test_kernels_are_named_by_what_they_do(name: str, label: str) -> None:
    assert name_kernel(name).label == label


def test_every_kind_has_a_bound_and_tables_show_short_names() -> None:
    assert set(BOUNDS.values()) == {"sm", "memory", "transfer", "wait"}
    assert short_name("void a::b<c, d(e)>(int, float)") == "a::b<c, d(e)>"
    assert short_name("(anonymous namespace)::f(int)") == "(anonymous namespace)::f"
    assert len(short_name("x" * 500)) == 96


# --- tables ------------------------------------------------------------------------------------------------------------


def test_tables_tell_phases_exchanges_classes_and_what_has_no_name(cut: Calibration) -> None:
    phases, exchanges, classes = calibrated.calibration_grids(cut)
    assert [row[0] for row in phases.rows] == [*PHASES, "all"]
    assert [row[0] for row in exchanges.rows] == list(EXCHANGES)
    assert len(classes.rows) == len(cut.classes)
    for grid in (phases, exchanges, classes):
        assert {len(row) for row in grid.rows} == {len(grid.heads)}
    assert "2 layer pairs, cut by named ranges" in calibrated.summary(cut)[-3]
    assert calibrated.summary(cut)[-1] == "Every kernel could be named."


def test_a_trace_of_nothing_known_is_told_so(tmp_path: Path) -> None:
    events = [
        {"ph": "X", "cat": "kernel", "name": f"void odd_{i}<int>(int)", "pid": 0, "tid": 7, "ts": i, "dur": 1}
        for i in range(30)
    ]
    found = calibrate(write(tmp_path, events))
    classes, unnamed = calibrated.calibration_grids(found)
    assert [row[0] for row in classes.rows] == ["unknown"]
    assert (len(unnamed.rows), unnamed.note) == (20, "and 10 more")
    assert (
        "No layer pairs were found: no stream of its own for communication" in calibrated.summary(found)[-2]
    )
    assert calibrated.summary(found)[-1] == "30 kernels, 100 % of the kernel time, could not be named."
