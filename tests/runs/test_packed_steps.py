"""Steps whose sequences hold documents of unequal length: FLOPs by hand, waits of ranks, and what may not change anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reinforcing
from sim import documents
from sim.cluster.hardware import load_hardware
from sim.engine import step as step_engine
from sim.engine import step_loop
from sim.engine.step import run_step
from sim.errors import InputError
from sim.runs.run import run_document
from sim.runs.training_step import Step
from sim.scenario.resolve import resolve
from sim.workload.model import load_model, training_flops_per_token

SCENARIO: dict[str, Any] = {
    "name": "mine",
    "cluster": {"hardware": "h100", "nodes": 1, "override": {"gpu.hbm.capacity": "4000 GB"}},
    "model": "llama-3.1-8b",
    "layout": {"pp": 1, "ep": 1},
    "workload": {
        "kind": "training",
        "sequence_tokens": 16384,
        "microbatches": 4,
        "schedule": "1f1b",
        "precision": "bf16",
        "dispatch_dtype": "bf16",
        "recompute": "none",
        "kernel": {"kind": "two_hop"},
        "skew": {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": 0},
    },
}
LENGTHS = {"kind": "lognormal", "mean": 3000, "spread": 1.3, "most": 16384}
MIXTRAL = {"model": "mixtral-8x7b", "layout": {"pp": 2, "ep": 4}}


def document(packing: dict[str, Any] | None = None, **changes: Any) -> documents.Document:
    """The scenario with packing; changes are of its branches, or of its workload."""
    tree = {key: dict(value) if isinstance(value, dict) else value for key, value in SCENARIO.items()}
    for key, value in changes.items():
        if key in ("model", "seed"):
            tree[key] = value
        elif key in ("layout", "cluster"):
            tree[key] = {**(tree[key] if key == "cluster" else {}), **value}
        else:
            tree["workload"][key] = value
    if packing is not None:
        tree["workload"]["packing"] = packing
    return documents.Document(tree, "mine.yaml")


def metrics(packing: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = run_document(document(packing, **changes))["metrics"]
    return found


def lengths(kind: str, mean: int) -> dict[str, Any]:
    return {"lengths": {"kind": kind, "mean": mean}}


@pytest.fixture
def recorded(tmp_path: Path) -> Any:
    def write(*tokens: int) -> dict[str, Any]:
        file = tmp_path / f"{'-'.join(map(str, tokens))}.csv"
        file.write_text("\n".join(["tokens", *map(str, tokens), ""]))
        return {"lengths": {"kind": "recorded", "file": str(file)}}

    return write


# --- FLOPs ------------------------------------------------------------------------------------------------------------


def test_the_bound_of_two_documents_a_sequence_is_short_of_the_products_across_them(recorded: Any) -> None:
    """A core is 2 heads (qk + v) l^2 / 2 forward and twice that backward: 4,096 + 12,288 tokens leave 2 x 4,096 x 12,288 out."""
    one = {"layout": {"pp": 1, "ep": 1, "dp": 1}, "cluster": {"gpus": 1}}
    packed = metrics(recorded(4096, 12288), **one)
    whole = metrics(**one)
    model, peak = load_model("llama-3.1-8b"), load_hardware("h100").gpu.dense_flops.peak("bf16")
    left_out = 3 * model.num_layers * 2 * 32 * (128 + 128) * (4096 * 12288)
    assert whole["lower_bound_s"] - packed["lower_bound_s"] == pytest.approx(4 * left_out / peak, rel=1e-9)
    assert packed["packing"]["attention_fraction"] == pytest.approx(0.25**2 + 0.75**2)
    tokens = [(4096, 0.25), (12288, 0.75)]
    flops = sum(share * training_flops_per_token(model, length, causal=True) for length, share in tokens)
    rate = packed["tokens_per_s_per_gpu"]
    assert packed["mfu_causal_fraction"] == pytest.approx(flops * rate / peak)
    assert packed["memory_peak_bytes"] == whole["memory_peak_bytes"]


@pytest.mark.parametrize("changes", [{}, MIXTRAL, {**MIXTRAL, "schedule": "dualpipe", "recompute": "full"}])
def test_equal_documents_take_as_long_as_shorter_sequences_of_as_many_tokens(changes: dict[str, Any]) -> None:
    long = metrics(lengths("fixed", 4096), **changes)
    short = metrics(**changes, sequence_tokens=4096, microbatch_sequences=4)
    facts = long.pop("packing")
    assert facts["attention_fraction"] == 0.25
    for name, value in short.items():
        assert long[name] == pytest.approx(value, rel=1e-9), name


def test_one_document_a_sequence_and_a_mask_across_documents_change_nothing() -> None:
    """To the last digit of every metric."""
    plain = metrics(**MIXTRAL)
    for packing in (lengths("fixed", 16384), {"lengths": LENGTHS, "mask": "none"}):
        packed = metrics(packing, **MIXTRAL)
        del packed["packing"]
        assert packed == plain


@settings(max_examples=8)
@given(st.integers(0, 99), st.sampled_from(("none", "sorted", "repacked", "even")), st.sampled_from((1, 2)))
def test_no_step_is_faster_than_its_bound(seed: int, balance: str, cp: int) -> None:
    way = {"context_parallel": "sequence"} if cp > 1 else {}
    found = metrics(
        {"lengths": LENGTHS, "balance": balance, **way}, seed=seed, layout={"pp": 2, "ep": 1, "cp": cp}
    )
    assert found["lower_bound_s"] <= found["step_time_s"]


def test_longer_documents_are_never_faster() -> None:
    steps = [metrics(lengths("fixed", 2**i), **MIXTRAL) for i in range(8, 15)]
    for name in ("lower_bound_s", "step_time_s"):
        times = [step[name] for step in steps]
        assert times == sorted(times)
        assert times[0] < times[-1]


# --- waits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tp", [1, 2])
def test_without_a_pipeline_a_step_takes_what_its_slowest_rank_alone_takes(tp: int, recorded: Any) -> None:
    """Ranks that share no expert meet at the optimizer alone; TP ranks share their documents."""
    layout = {"pp": 1, "ep": 1, "tp": tp}
    whole = document({"lengths": LENGTHS}, layout=layout)
    step = resolve(whole).workload
    assert step.packed is not None  # type: ignore[attr-defined]
    num, each = step.packed.shape  # type: ignore[attr-defined]
    alone = []
    for rank in range(num):
        own = step.packed.place // each == rank  # type: ignore[attr-defined]
        packing = recorded(*step.packed.lengths[own].tolist())  # type: ignore[attr-defined]
        alone.append(metrics(packing, layout={**layout, "dp": 1}, cluster={"gpus": tp}))
    computed = [found["step_time_s"] - found["optimizer_s"] for found in alone]
    together = run_document(whole)["metrics"]
    assert max(computed) > 1.05 * min(computed)
    assert together["step_time_s"] - together["optimizer_s"] == pytest.approx(max(computed), rel=1e-9)
    bounds = [found["lower_bound_s"] for found in alone]
    gradients_s = together["lower_bound_s"] - max(bounds)
    assert 0 <= gradients_s < together["optimizer_s"]


def test_balancing_buys_back_what_ranks_of_experts_wait_for() -> None:
    layouts = {**MIXTRAL, "microbatches": 8}
    steps = {
        way: metrics({"lengths": LENGTHS, "balance": way}, **layouts) for way in ("none", "sorted", "even")
    }
    times = {way: step["step_time_s"] for way, step in steps.items()}
    assert times["even"] < times["sorted"] < times["none"]
    waits = {way: step["barrier_wait_s"] for way, step in steps.items()}
    assert waits["even"] == 0 < waits["sorted"] < waits["none"]
    assert {step["packing"]["attention_fraction"] for step in steps.values()} == {
        steps["none"]["packing"]["attention_fraction"]
    }


def test_parts_of_sequences_make_ranks_of_context_parallelism_wait() -> None:
    layout = {"pp": 1, "ep": 1, "cp": 4}
    ways = {
        way: metrics({"lengths": LENGTHS, "context_parallel": way}, layout=layout)
        for way in ("document", "sequence")
    }
    assert ways["sequence"]["step_time_s"] > ways["document"]["step_time_s"]
    default = metrics({"lengths": LENGTHS}, layout=layout)
    assert default == ways["document"]
    whole = lengths("fixed", 16384) | {"context_parallel": "sequence"}
    assert metrics(whole, layout=layout)["step_time_s"] == metrics(layout=layout)["step_time_s"]


def test_padding_counts_as_no_token_and_takes_its_time() -> None:
    """One document of 10,000 tokens fits into each of 32 sequences, and the last that is drawn, cut to 4,288, behind one."""
    found = metrics(lengths("fixed", 10000) | {"fit": "first_fit"})
    assert found["packing"]["documents"] == 33
    assert found["tokens_per_step"] == 32 * 10000 + 4288
    assert found["packing"]["padding_fraction"] == pytest.approx(1 - found["tokens_per_step"] / (32 * 16384))
    assert found["step_time_s"] == pytest.approx(metrics(lengths("fixed", 10000))["step_time_s"], rel=0.1)


def test_listed_documents_are_all_that_a_step_has() -> None:
    """Two sequences of a step of 32 hold documents: of 3 / 4 and of 1 / 2 of their tokens."""
    one = metrics({"lengths": {"kind": "listed", "tokens": [12288, 8192]}, "fit": "first_fit"})
    assert one["tokens_per_step"] == 12288 + 8192
    assert one["packing"]["documents"] == 2
    assert one["packing"]["attention_fraction"] == pytest.approx((0.75**2 + 0.5**2) / 32)


# --- samples of reinforcement learning --------------------------------------------------------------------------------------


def iteration(
    packing: dict[str, Any] | None, lengths: dict[str, Any] | None = None, **keys: Any
) -> dict[str, Any]:
    made = reinforcing.document()
    made.tree["workload"] |= keys | ({"lengths": lengths} if lengths else {})
    if packing is not None:
        made.tree["workload"]["update"]["packing"] = packing
    found: dict[str, Any] = run_document(made)["metrics"]
    return found


@pytest.mark.parametrize("updates", [1, 2])
def test_packed_samples_of_equal_length_are_trained_on_as_sequences_of_it(updates: int) -> None:
    """Of 128 + 896 = 1,024 tokens each, four a microbatch, both ways."""
    keys = {"lengths": {"kind": "fixed", "mean": 896}, "pack_tokens": 4096, "updates": updates}
    packed, plain = iteration({}, **keys), iteration(None, **keys)
    for name in ("update_s", "logprob_s", "step_time_s"):
        assert packed[name] == pytest.approx(plain[name], rel=1e-9)


def test_an_update_waits_for_the_longest_samples_unless_they_are_balanced() -> None:
    times = {way: iteration({"balance": way})["update_s"] for way in ("none", "sorted", "even")}
    assert times["even"] < times["sorted"] < times["none"]


def test_lengths_of_packed_samples_are_their_own() -> None:
    with pytest.raises(InputError, match=r"update\.packing\.lengths.*those of the samples"):
        iteration({"lengths": LENGTHS})


# --- the engine ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {**MIXTRAL, "skew": {"routed_load": 0.1, "kernel_jitter": 0.02, "gpu_spread": 0.01}},
        {"layout": {"pp": 2, "ep": 1, "tp": 2}},
        {"layout": {"pp": 2, "ep": 1, "cp": 2, "tp": 2}},
    ],
)
def test_a_packed_step_is_the_same_compiled_and_as_plain_python(changes: dict[str, Any]) -> None:
    way = {"context_parallel": "sequence"} if "cp" in changes["layout"] else {}
    plan = Step.from_scenario(resolve(document({"lengths": LENGTHS, **way}, **changes))).plan
    found = []
    with pytest.MonkeyPatch.context() as patched:
        for loop in (step_loop.run.machine_code, step_loop.run.plain):
            patched.setattr(step_engine, "_loop", lambda *_, loop=loop: loop)
            found.append([record.end_s.tolist() for record in run_step(plan).records])
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-9)
    assert len({max(ends) for ends in found[0]}) > 1


def test_a_clock_at_half_from_the_begin_on_is_a_slower_gpu() -> None:
    """Once as a fault of the whole run, in the speeds, and once as a condition that begins at once."""
    faults = [[{"node": 0, "gpu": 2, "clock": "50 %", **when}] for when in ({}, {"until": "1000 s"})]
    lasting, until = (metrics({"lengths": LENGTHS}, **MIXTRAL, cluster={"faults": own}) for own in faults)
    assert until["step_time_s"] == pytest.approx(lasting["step_time_s"], rel=1e-9)
    assert lasting["step_time_s"] > 1.2 * metrics({"lengths": LENGTHS}, **MIXTRAL)["step_time_s"]


# --- problems -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packing", "changes", "key", "wanted"),
    [
        ({"mask": "none", "balance": "sorted"}, {}, "workload.packing.balance", "next to mask: none"),
        ({"context_parallel": "sequence"}, {}, "workload.packing.context_parallel", "layout.cp above 1"),
        (
            {"context_parallel": "sequence"},
            {"layout": {"pp": 1, "ep": 1, "cp": 4}, "sequence_tokens": 4 * 1025},
            "workload.sequence_tokens",
            "a multiple of 8",
        ),
        (
            {"context_parallel": "document", "mask": "none"},
            {"layout": {"pp": 1, "ep": 1, "cp": 2}},
            "workload.packing.context_parallel",
            "next to mask: none",
        ),
        ({"balance": "sort"}, {}, "workload.packing.balance", "sorted"),
        (
            {"lengths": {"kind": "recorded", "file": "no.csv"}},
            {},
            "workload.packing.lengths.file",
            "documents",
        ),
        (
            {"lengths": {"kind": "listed", "tokens": [16384] * 33}},
            {},
            "workload.packing.lengths.tokens",
            "32 sequences of 16,384",
        ),
        ({}, {"compute": "measured", "profile": "h800-train-measured"}, "workload.packing", "measured"),
    ],
)
def test_bad_packing_is_named(
    packing: dict[str, Any], changes: dict[str, Any], key: str, wanted: str
) -> None:
    with pytest.raises(InputError) as caught:
        resolve(document({"lengths": LENGTHS} | packing, **changes))
    (problem,) = caught.value.problems
    assert problem.key == key
    assert wanted in str(problem)


def test_bad_lengths_of_a_file_are_named_by_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("tokens\n12\n0\n-3\n")
    with pytest.raises(InputError) as caught:
        resolve(document({"lengths": {"kind": "recorded", "file": str(file)}}))
    assert [(problem.where.line, problem.got) for problem in caught.value.problems] == [
        (3, "'0'"),
        (4, "'-3'"),
    ]  # type: ignore[union-attr]
