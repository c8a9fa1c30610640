"""Classes of requests: measured from the lives of their own requests, adding up to the whole, good by their own objectives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from one_pool import ONE_POOL
from sim.engine.serving import serve
from sim.engine.serving_lives import ServingTrace
from sim.errors import InputError
from sim.metrics import METRICS
from sim.runs.run import run_scenario
from sim.runs.serving_metrics import measure
from sim.scenario import settings
from sim.scenario.resolve import resolve, unreported
from sim.scenario.serving import Serving
from sim.schedule.serving import EnginePolicy, Pool, Service
from sim.sweeps import file as sweep_file
from sim.trees import leaves
from sim.workload.request_classes import DrawnClass, poisson_classes, split_by_length
from sim.workload.requests import Lengths, RequestClasses, Requests

CHAT = DrawnClass(0.75, Lengths("lognormal", 60, 0.5), Lengths("exponential", 20))
SUMMARISE = DrawnClass(0.25, Lengths("exponential", 400, most_tokens=1900), Lengths("exponential", 6))
BOTH = {"chat": CHAT, "summarise": SUMMARISE}


def service(**engine: Any) -> Service:
    """1 ms a prompt token of the busiest rank, a step of 10 ms and 1 ms a request, room for 2,000 tokens."""
    return Service(
        prefill=Pool(1, 2000.0),
        decode=None,
        prefill_s=lambda work: 1e-3 * work.busiest_tokens,
        decode_step_s=lambda work: 1e-2 + 1e-3 * float(work.requests.sum()),
        kv_bytes_per_token=1.0,
        engine=EnginePolicy(chunk_tokens=200, **engine),
    )


def ran(num: int = 600, **engine: Any) -> tuple[Requests, ServingTrace, dict[str, Any]]:
    asked = poisson_classes(num, 5.0, BOTH, np.random.default_rng(7))
    here = service(**engine)
    trace = serve(here, asked)
    return asked, trace, measure(here, asked, trace, 1, ttft_s=1.0, tpot_s=0.05)


def own(asked: Requests, name: str) -> np.ndarray:
    assert asked.classes is not None
    return asked.classes.class_idx == asked.classes.names.index(name)


# --- measured --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preemption", ["none", "recompute"])
def test_classes_add_up_to_the_whole(preemption: str) -> None:
    """Counts and rates are sums; means are those of the classes by their requests."""
    _, trace, found = ran(preemption=preemption)
    parts = found["classes"].values()
    assert [*found["classes"]] == ["chat", "summarise"]
    for key in ("num_ended", "num_refused", "num_unfinished", "preemptions"):
        assert sum(part[key] for part in parts) == found[key]
    for key in ("goodput_requests_per_s", "requests_per_s", "output_tokens_per_s"):
        assert sum(part[key] for part in parts) == pytest.approx(found[key])
    for key in ("ttft", "response", "prefill_wait"):
        total = sum(part[key]["mean_s"] * part["num_ended"] for part in parts)
        assert total / found["num_ended"] == pytest.approx(found[key]["mean_s"])
    assert found["preemptions"] == trace.preemptions > (-1 if preemption == "none" else 0)
    assert max(part["token_gap"]["max_s"] for part in parts) == found["token_gap"]["max_s"]


def test_percentiles_of_a_class_are_those_of_its_requests_alone() -> None:
    asked, trace, found = ran()
    for name in BOTH:
        mine = own(asked, name)
        ttft = (trace.instants["first_token_s"] - asked.arrival_s)[mine]
        several = mine & (asked.output_tokens > 1)
        spent = (trace.instants["end_s"] - trace.instants["first_token_s"])[several]
        tpot = spent / (asked.output_tokens[several] - 1)
        for p in (50, 90, 99):
            assert found["classes"][name]["ttft"][f"p{p}_s"] == pytest.approx(np.percentile(ttft, p))
            assert found["classes"][name]["tpot"][f"p{p}_s"] == pytest.approx(np.percentile(tpot, p))


def test_token_gaps_of_a_class_are_those_between_the_tokens_of_its_requests() -> None:
    """Every request gets its tokens at the ends of steps in a row, from its first on."""
    asked, trace, found = ran()
    end_s = trace.decode[0].end_s[trace.decode[0].steps]
    for name in BOTH:
        gaps = [
            np.diff(end_s[first : first + steps])
            for first, steps in zip(
                trace.first_step[own(asked, name)], trace.steps[own(asked, name)], strict=True
            )
            if steps
        ]
        ordered = np.sort(np.concatenate(gaps))
        for p in (50, 90, 99):
            place = int(np.ceil(p / 100 * len(ordered))) - 1
            assert found["classes"][name]["token_gap"][f"p{p}_s"] == ordered[place]


def test_a_gap_that_a_preempted_request_is_not_in_is_not_its_own() -> None:
    """Two of 10 + 50 tokens in room for 100: the later is put out once and has one gap less than a request of 49 steps."""
    here = service(preemption="recompute", max_requests=8)
    here = Service(**{name: getattr(here, name) for name in here.__slots__} | {"prefill": Pool(1, 100.0)})
    asked = Requests(
        np.zeros(2), np.full(2, 10), np.full(2, 50), classes=RequestClasses(("a", "b"), np.arange(2))
    )
    trace = serve(here, asked)
    assert trace.times_put_out.tolist() == [0, 1]
    stays = trace.decode[0].stays
    steps = {request: [(b - a) for r, a, b in stays if r == request] for request in (0, 1)}
    assert steps[0] == [49]
    assert len(steps[1]) == 2
    assert sum(steps[1]) in (48, 49)  # another prefill may give it a token


def test_a_request_is_good_by_the_objectives_of_its_class() -> None:
    """First tokens after 0.1 s and 0.15 s: bounds of 0.12 s and 0.2 s, or the other way round."""
    here = service(batch_requests=1)
    classes = RequestClasses(("a", "b"), np.array([0, 1]))
    asked = Requests(np.array([0.0, 0.05]), np.array([100, 100]), np.array([1, 1]), classes=classes)
    trace = serve(here, asked)
    for bounds, good in (([0.12, 0.2], [1, 1]), ([0.2, 0.12], [1, 0]), ([0.05, np.inf], [0, 1])):
        found = measure(here, asked, trace, 1, ttft_s=np.array(bounds))
        assert [part["good_fraction"] for part in found["classes"].values()] == good
        assert found["good_fraction"] == np.mean(good)


def test_a_class_without_requests_has_no_times() -> None:
    here = service()
    asked = Requests(
        np.zeros(1),
        np.ones(1, dtype=int),
        np.ones(1, dtype=int),
        classes=RequestClasses(("a", "b"), np.zeros(1, int)),
    )
    found = measure(here, asked, serve(here, asked), 1)["classes"]["b"]
    assert found["ttft"] == found["token_gap"] == {}
    assert found["num_ended"] == found["good_fraction"] == 0


# --- drawn -----------------------------------------------------------------------------------------------------------


def test_each_class_arrives_as_a_poisson_process_of_its_own() -> None:
    """Gaps have mean and deviation of one over its rate; counts of equal windows vary as their mean, and with no other's."""
    asked = poisson_classes(80_000, 20.0, BOTH, np.random.default_rng(1))
    counts = []
    for name, kind in BOTH.items():
        arrivals = asked.arrival_s[own(asked, name)]
        gaps = np.diff(arrivals)
        assert gaps.mean() == pytest.approx(1 / (20 * kind.share), rel=4 / np.sqrt(len(gaps)))
        assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
        counts.append(np.histogram(arrivals, np.arange(0, asked.arrival_s[-1] // 2 * 2, 2.0))[0])
        assert counts[-1].var() == pytest.approx(counts[-1].mean(), rel=0.15)
    assert abs(np.corrcoef(*counts)[0, 1]) < 4 / np.sqrt(len(counts[0]))
    assert asked.prompt_tokens[own(asked, "summarise")].mean() == pytest.approx(400, rel=0.03)


def test_a_prompt_is_of_the_first_class_whose_most_it_does_not_exceed() -> None:
    asked = Requests(np.zeros(4), np.array([1, 100, 101, 10**6]), np.ones(4, dtype=int))
    classes = split_by_length(asked, {"short": 100, "long": None}).classes
    assert classes is not None
    assert classes.class_idx.tolist() == [0, 0, 1, 1]


# --- scenarios -------------------------------------------------------------------------------------------------------

DRAWN = """
  arrivals: {kind: poisson, requests: 60, requests_per_s: 50, output: {kind: fixed, mean: 8}}
  classes:
    chat: {share: 75 %, prompt: {kind: fixed, mean: 200}}
    summarise: {share: 25 %, prompt: {kind: fixed, mean: 3000}, slo: {ttft: 10 s}}
  slo: {ttft: 1 ns, tpot: 10 s}
"""
TRACE = "\n  arrivals: {kind: trace, file: trace.csv}\n"
BURSTGPT = (
    "Timestamp,Session ID,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "0,a,ChatGPT,10,2,12,Conversation log\n1,b,GPT-4,700,3,703,API log\n2,a,ChatGPT,30,4,34,Conversation log\n"
)


def read(folder: Path, text: str, *changes: str) -> Any:
    file = folder / "classes.yaml"
    file.write_text(ONE_POOL + text)
    return settings.read(str(file), changes)


def requests(folder: Path, text: str, *changes: str) -> Requests:
    work = resolve(read(folder, text, *changes)).workload
    assert isinstance(work, Serving)
    return work.requests


def test_a_run_reports_every_metric_of_a_class_and_judges_it_by_its_own_objectives(tmp_path: Path) -> None:
    metrics = run_scenario(resolve(read(tmp_path, DRAWN)))["metrics"]
    by_class = {name for name, row in METRICS.items() if row.by_class}
    for part in metrics["classes"].values():
        assert {".".join(path) for path, value in leaves(part) if value != {}} | {
            name
            for name in by_class
            if name.startswith("kv_transfer")  # one pool moves no KV
        } >= by_class - {name for name in by_class if name.startswith(("decode_wait", "step_wait"))}
    assert metrics["classes"]["chat"]["good_fraction"] == 0  # none in a nanosecond
    assert metrics["classes"]["summarise"]["good_fraction"] == 1


def test_columns_of_traces_name_classes(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(BURSTGPT)
    for column, names in (("Log Type", ("conversation-log", "api-log")), ("Model", ("chatgpt", "gpt-4"))):
        classes = requests(tmp_path, TRACE, f"workload.arrivals.class_column={column}").classes
        assert classes is not None
        assert classes.names == names
        assert classes.class_idx.tolist() == [0, 1, 0]
    (tmp_path / "trace.csv").write_text(
        "arrival_s,prompt_tokens,output_tokens,tier\n0,1,1,Free\n0,1,1,paid\n"
    )
    classes = requests(tmp_path, TRACE, "workload.arrivals.class_column=tier").classes
    assert classes is not None
    assert classes.names == ("free", "paid")
    lines = [
        {"timestamp": i, "input_length": 9, "output_length": 1, "app": name} for i, name in enumerate("aba")
    ]
    (tmp_path / "trace.csv").write_text("\n".join(map(json.dumps, lines)))
    classes = requests(tmp_path, TRACE, "workload.arrivals.class_column=app").classes
    assert classes is not None
    assert classes.class_idx.tolist() == [0, 1, 0]


def test_a_file_for_each_class_is_merged_by_arrival_and_keeps_its_hashes_apart(tmp_path: Path) -> None:
    for name, times, ids in (("code", (0, 30), [1]), ("chat", (10, 20), [1, 2])):
        rows = [{"timestamp": t, "input_length": 600, "output_length": 1, "hash_ids": ids} for t in times]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = "\n  arrivals: {kind: trace}\n  classes: {code: {file: code.jsonl}, chat: {file: chat.jsonl}}\n"
    asked = requests(tmp_path, text)
    assert asked.classes is not None
    assert asked.arrival_s.tolist() == pytest.approx([0, 0.01, 0.02, 0.03])
    assert asked.classes.class_idx.tolist() == [0, 1, 1, 0]
    assert asked.blocks is not None
    found = [set(asked.blocks.hashes(i).tolist()) for i in range(4)]
    assert found[0] == found[3]
    assert found[1] == found[2]
    assert found[0].isdisjoint(found[1])
    assert [len(ids) for ids in found] == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("text", "change", "told"),
    [
        (DRAWN, "workload.classes.chat.share=70 %", "workload.classes: got shares of 95.0000% together; wanted 100 %"),
        (DRAWN, "workload.classes.chat.share=0 %", "workload.classes.chat.share: got 0; wanted more than 0 %"),
        (DRAWN, "workload.classes.chat={prompt: {kind: fixed, mean: 9}}", "workload.classes.chat: got no 'share'"),
        (DRAWN, "workload.classes.chat={share: 75 %}", "workload.classes.chat: got no 'prompt'; wanted its lengths"),
        (DRAWN, "workload.arrivals.prompt={kind: fixed, mean: 9}", "workload.arrivals.prompt: got given, and every class"),
        (DRAWN, "workload.classes.chat.most_prompt_tokens=9", "most_prompt_tokens: got given next to share"),
        (DRAWN, "workload.classes.chat.slo={ttft: 0 s}", "workload.classes.chat.slo.ttft: got 0 s"),
        (DRAWN, "workload.classes={chat: {slo: {ttft: 1 s}}}", "got classes that nothing tells apart"),
        (DRAWN, "workload.classes={a.b: {share: 100 %}}", "workload.classes"),
        (TRACE, "workload.classes={a: {share: 100 %}}", "share: got given next to arrivals.kind: trace"),
        (TRACE, "workload.classes={a: {file: trace.csv}}", "workload.arrivals.file: got given next to a file in each class"),
        (TRACE, "workload.arrivals={kind: trace}", "workload.arrivals.file: got no file"),
        (TRACE, "workload.arrivals.class_column=Log Typ", "Log Typ: got no such column"),
        (TRACE, "workload.classes={a: {most_prompt_tokens: 9}}", "got 9; wanted none: the last class has all longer"),
        (
            TRACE,
            "workload.classes={a: {most_prompt_tokens: 9}, b: {most_prompt_tokens: 9}, c: {}}",
            "workload.classes.b.most_prompt_tokens: got 9; wanted more than the 9 of the class before",
        ),
        (
            TRACE.replace("trace.csv", 'trace.csv, class_column: "Log Type"'),
            "workload.classes={api-logs: {slo: {ttft: 1 s}}}",
            "workload.classes.api-logs: got 'api-logs'; wanted a class of the trace: conversation-log, api-log; did you mean api-log?",
        ),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_are_told(text: str, change: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(BURSTGPT)
    with pytest.raises(InputError) as caught:
        resolve(read(tmp_path, text, change))
    assert told in str(caught.value)


def test_an_empty_cell_and_too_many_words_are_no_classes(tmp_path: Path) -> None:
    at = "workload.arrivals.class_column=tier"
    for cells, told in (
        (["x", "?"], "trace.csv:3:4: tier: got ?"),
        ([f"c{i}" for i in range(65)], "after 64 others"),
    ):
        rows = "\n".join(f"0,1,1,{cell}" for cell in cells)
        (tmp_path / "trace.csv").write_text(f"arrival_s,prompt_tokens,output_tokens,tier\n{rows}\n")
        with pytest.raises(InputError, match=told.replace("?", r"\?")):
            requests(tmp_path, TRACE, at)


def test_metrics_of_classes_may_be_expected_and_asked_for_and_others_are_told(tmp_path: Path) -> None:
    expected = "\nexpect: {NAME: {value: 1 s, tolerance: 10 %}}\n"
    for name, told in (("classes.chat.ttft.p99_s", 0), ("classes.chat.makespan_s", 1)):
        scenario = resolve(read(tmp_path, DRAWN + expected.replace("NAME", name)))
        assert len([*unreported(scenario)]) == told
    sweep = "name: asked\nbase: classes\naxes: {workload.policy: [fcfs]}\nconstraints: [classes.chat.ttft.p99_s < 2]\nobjectives: {NAME: minimise}\n"
    for name, fails in (("classes.chat.tpot.p99_s", False), ("classes.chat.lower_bound_s", True)):
        file = tmp_path / "sweep.yaml"
        file.write_text(
            sweep.replace("NAME", name).replace("base: classes", f"base: {tmp_path / 'classes.yaml'}")
        )
        read(tmp_path, DRAWN)
        if fails:
            with pytest.raises(InputError, match="objectives"):
                sweep_file.read(file)
        else:
            sweep_file.read(file)
