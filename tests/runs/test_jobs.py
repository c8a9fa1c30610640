"""Jobs side by side: they share links where their ways meet, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from balanced import SCENARIO
from sim import documents
from sim.documents import Document
from sim.errors import InfeasibleError, InputError
from sim.runs.run import run_document
from sim.scenario.resolve import resolve
from sim.schedule.collectives import HEADERS
from sim.show.files.folder import read, save
from sim.show.pages.run import run_html
from sim.show.views.run import views_of
from sim.show.words.run import finding

PLAIN = "{kind: all_to_all, bytes_per_rank: 16 MiB, kernel: {kind: nccl}}"
TREE = "{hardware: h800, nodes: 8, fabric: {kind: fat_tree, nodes_per_leaf: 4, oversubscription: 4}}"
FLOWS = "flow_id,src,dst,bytes,start_us,after_flow_id\n1,0,9,100000000,0,0\n2,9,1,50000000,500,1\n3,2,10,100000000,100,0\n"
POOLS = "{pools: {a: {hardware: h800, nodes: 10}, b: {hardware: h20, nodes: 4}}, fabric: {nodes_per_leaf: 4, oversubscription: RATIO}}"
KINDS = {
    "train": "pool: a, gpus: 32, model: mixtral-8x7b, layout: {pp: 2, ep: 8}, workload: {kind: training, sequence_tokens: 4096, microbatches: 2, "
    "schedule: 1f1b, precision: bf16, dispatch_dtype: bf16, recompute: full, kernel: {kind: two_hop}, skew: {routed_load: 0.2, kernel_jitter: 0.05}}",
    "move": "pool: a, gpus: 16, workload: {kind: flows, file: flows.csv}",
    "reduce": "pool: a, gpus: 32, workload: {kind: collective, op: all_reduce, bytes_per_rank: 400 MB}",
    "serve": "pool: b, gpus: 16, model: deepseek-v3, workload: {kind: decode, requests_per_gpu: 32, context_tokens: 4096, "
    "overlap: false, skew: {kernel_jitter: 0, gpu_spread: 0}, kernel: {kind: low_latency}, gate: {kind: uniform, sampling: expected}}",
    "fill": "pool: b, gpus: 16, model: deepseek-v3, workload: {kind: prefill, prompt_tokens: 2048, chunk_tokens: 1024, prompts_per_gpu: 2, "
    "skew: {kernel_jitter: 0, gpu_spread: 0}, kernel: {kind: two_hop}, gate: {kind: uniform, sampling: expected}}",
}  # fmt: skip


def document(cluster: str, **jobs: str) -> Document:
    rows = "".join(f"  - {{name: {name}, {text}}}\n" for name, text in jobs.items())
    return documents.loads(f"name: mine\ncluster: {cluster}\njobs:\n{rows}", "mine.yaml")


@lru_cache(maxsize=32)
def two(first: str, second: str | None) -> dict[str, Any]:
    """Metrics of plain all-to-alls on these nodes of a tree of two leaves."""
    nodes = {"a": first} | ({"b": second} if second else {})
    jobs = {name: f"use_nodes: {own}, workload: {PLAIN}" for name, own in nodes.items()}
    metrics: dict[str, Any] = run_document(document(TREE, **jobs))["metrics"]["jobs"]
    return metrics


def test_two_all_to_alls_across_one_oversubscribed_spine_take_twice_as_long() -> None:
    """16 GPUs of each leaf send half their 16 MiB to the other leaf, over uplinks of 4 nodes x 8 NICs / 4."""
    across_s = 16 * 8 * 2**20 * HEADERS / (4 * 8 * 50e9 / 4)
    alone = two("[0, 1, 4, 5]", None)["a"]["exchange"]["completion_time_s"]
    both = two("[0, 1, 4, 5]", "[2, 3, 6, 7]")
    assert both["a"] == both["b"]
    assert both["a"]["exchange"]["completion_time_s"] - alone == pytest.approx(across_s, rel=1e-9)


def test_an_all_to_all_has_as_much_of_an_uplink_as_one_of_twice_the_bytes() -> None:
    """The small one begins earlier, has the uplinks to itself until the other begins, then half of them, not a third."""
    jobs = {
        "small": f"use_nodes: [0, 1, 4, 5], workload: {PLAIN.replace('16', '8')}",
        "large": f"use_nodes: [2, 3, 6, 7], workload: {PLAIN}",
    }
    small_s, large_s = (
        run_document(document(TREE, **{name: job}))["metrics"]["jobs"][name]["exchange"]["completion_time_s"]
        for name, job in jobs.items()
    )
    across_s = 16 * 4 * 2**20 * HEADERS / (4 * 8 * 50e9 / 4)
    earlier_s = (large_s - 2 * across_s) - (small_s - across_s)
    beside = run_document(document(TREE, **jobs))["metrics"]["jobs"]["small"]["exchange"]
    assert beside["completion_time_s"] - small_s == pytest.approx(across_s - earlier_s, rel=1e-9)


def test_on_links_of_its_own_each_all_to_all_takes_its_own_time_to_the_last_digit() -> None:
    both = two("[0, 1, 2, 3]", "[4, 5, 6, 7]")
    cluster = TREE.replace("nodes: 8", "nodes: 8, use_nodes: [0, 1, 2, 3]")
    whole = run_document(documents.loads(f"name: mine\ncluster: {cluster}\nworkload: {PLAIN}\n", "mine.yaml"))
    for name in ("a", "b"):
        theirs = {
            "binding_resource": whole["metrics"]["exchange"]["binding_resource"]
        }  # on nodes of their own
        assert both[name]["exchange"] | theirs == whole["metrics"]["exchange"]
        assert both[name]["energy"] == whole["metrics"]["energy"]


@lru_cache(maxsize=2)
def everything(folder: Path, ratio: int) -> dict[str, Any]:
    (folder / "flows.csv").write_text(FLOWS)
    whole = document(POOLS.replace("RATIO", str(ratio)), **KINDS)
    whole.folder = folder
    return run_document(whole)


def alone(folder: Path, name: str, cluster: str) -> dict[str, Any]:
    """Metrics of a job as a scenario of its own."""
    _, _, rest = KINDS[name].partition("gpus: ")
    keys = rest.partition(", ")[2].replace(", workload:", "\nworkload:").replace(", layout:", "\nlayout:")
    own = documents.loads(f"name: mine\ncluster: {cluster}\n{keys}\n", "mine.yaml")
    own.folder = folder
    metrics: dict[str, Any] = run_document(own)["metrics"]
    return metrics


def test_jobs_of_every_kind_run_beside_one_another(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a fabric of full rate nobody meets anybody: each job reports what it reports alone."""
    folder = tmp_path_factory.mktemp("jobs")
    result = everything(folder, 1)
    jobs = result["metrics"]["jobs"]
    assert list(jobs) == list(KINDS)
    places = {
        "train": "{pools: {a: {hardware: h800, nodes: 10}}, pool: a, gpus: 32",
        "serve": "{pools: {x: {hardware: h800, nodes: 10}, b: {hardware: h20, nodes: 4}}, pool: b, gpus: 16",
        "fill": "{pools: {x: {hardware: h800, nodes: 10}, b: {hardware: h20, nodes: 4}}, pool: b, use_nodes: [2, 3]",
    }
    for name, place in places.items():
        own = alone(folder, name, f"{place}, fabric: {{nodes_per_leaf: 4}}}}")
        assert jobs[name]["step_time_s"] == pytest.approx(own["step_time_s"], rel=1e-12)
        assert jobs[name].keys() == own.keys()
    # Flow 1 moves 100 MB over a NIC of 50 GB/s; word of it is back, then flow 2 moves 50 MB, once 0.5 ms have passed.
    assert jobs["move"]["completion_time_s"] == pytest.approx(3e-3, rel=0.01)
    busiest = max(job.get("step_time_s", job.get("completion_time_s")) for job in jobs.values())
    assert result["metrics"]["completion_time_s"] == pytest.approx(busiest, rel=1e-12)


def test_jobs_that_cross_thin_uplinks_are_slower_and_those_that_stay_on_their_leaves_are_not(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    free, thin = (everything(tmp_path_factory.mktemp("jobs"), ratio)["metrics"]["jobs"] for ratio in (1, 16))
    assert thin["serve"]["step_time_s"] > 1.2 * free["serve"]["step_time_s"]  # from any rail to any other
    for name in ("train", "fill"):  # rail by rail within a leaf
        assert thin[name]["step_time_s"] == pytest.approx(free[name]["step_time_s"], rel=1e-9)


def test_like_steps_on_machines_of_their_own_take_the_same_time_whichever_is_first() -> None:
    """Each layer of either waits for the rank that its own draw makes slow."""
    step = KINDS["train"].replace("pool: a, gpus: 32", "use_nodes: NODES")
    nodes = {"a": "[0, 1]", "b": "[2, 3]", "c": "[4, 5]"}
    jobs = {name: step.replace("NODES", own) for name, own in nodes.items()}
    found = run_document(document(TREE, **jobs))["metrics"]["jobs"]
    times_s = [found[name]["step_time_s"] for name in nodes]
    assert times_s == pytest.approx(times_s[:1] * 3, rel=1e-9)


def test_a_job_that_ends_earlier_leaves_its_links_to_the_others(tmp_path: Path) -> None:
    """100 MB and 25 MB over an uplink of 50 GB/s: half each until the second's are there, then all for the first."""
    ends = {}
    for names in ("ab", "a", "b"):
        jobs = {}
        for name, nodes, size in (("a", "[0, 4]", 100), ("b", "[1, 5]", 25)):
            row = f"1,0,8,{size}000000,0\n"
            (tmp_path / f"{name}.csv").write_text("flow_id,src,dst,bytes,start_us\n" + row)
            if name in names:
                jobs[name] = f"use_nodes: {nodes}, workload: {{kind: flows, file: {name}.csv}}"
        whole = document(TREE.replace("oversubscription: 4", "oversubscription: 32"), **jobs)
        whole.folder = tmp_path
        for name, metrics in run_document(whole)["metrics"]["jobs"].items():
            ends[names, name] = metrics["completion_time_s"]
    for name in "ab":
        assert ends["ab", name] - ends[name, name] == pytest.approx(25e6 / 50e9, rel=1e-9)


def test_reductions_of_a_step_meet_what_goes_on_when_they_begin() -> None:
    """A step of four nodes and a long exchange on the same leaves: the step alone ends its optimizer earlier."""
    step = SCENARIO.format(fabric="{}", faults="[]").partition("model:")[2]
    lines = step.replace("{pp: 4, ep: 8}", "{pp: 1, ep: 8}").splitlines()
    work = "{" + ", ".join(line.strip() for line in lines[3:]) + "}"
    train = f"use_nodes: [0, 4], model: mixtral-8x7b, layout: {{pp: 1, ep: 8}}, workload: {work}"
    long = f"use_nodes: [1, 5], workload: {PLAIN.replace('16 MiB', '64 GiB')}"
    cluster = TREE.replace("oversubscription: 4", "oversubscription: 32")
    beside, own = (
        run_document(document(cluster, **jobs))["metrics"]["jobs"]["train"]
        for jobs in ({"train": train, "long": long}, {"train": train})
    )
    assert beside["optimizer_s"] > 1.5 * own["optimizer_s"]
    assert beside["phases"]["1F_s"] == own["phases"]["1F_s"]


def test_a_result_of_jobs_says_who_ends_when() -> None:
    result = run_document(
        document(TREE, a=f"use_nodes: [0, 1], workload: {PLAIN}", b=f"use_nodes: [4, 5], workload: {PLAIN}")
    )
    sentences = finding(views_of(result))
    assert sentences[0].startswith("2 jobs share a network and end: a after ")
    assert "Jobs on one network" in run_html(result)


@pytest.mark.parametrize(
    ("jobs", "place", "words"),
    [
        ({"a": f"workload: {PLAIN}", "b": f"workload: {PLAIN}"}, "jobs.1:", ["node 0 is of job 'a'"]),
        ({"a": f"gpus: 48, workload: {PLAIN}", "b": f"gpus: 24, workload: {PLAIN}"}, "jobs.1.gpus", ["at most 16"]),
        ({"a": f"pool: a, workload: {PLAIN}"}, "jobs.0.pool", ["'a'", "the cluster has none"]),
        ({"a": "workload: {kind: rl_step}"}, "jobs.0.workload.kind", ["'rl_step'", "one of: all_to_all"]),
        ({"a": f"workload: {PLAIN.replace('16 MiB', '0 B')}"}, "jobs.0.workload.bytes_per_rank", ["more than 0"]),
        ({"a": f"layout: {{ep: 5}}, workload: {PLAIN}"}, "jobs.0.layout.ep", ["a divisor of the 64 ranks"]),
        ({"a": f"use_nodes: [9], workload: {PLAIN}"}, "jobs.0.use_nodes", ["nodes 0 to 7"]),
        ({"a": f"gpu: 8, workload: {PLAIN}"}, "jobs.0.gpu", ["did you mean gpus?"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_jobs_is_named_at_its_place(
    jobs: dict[str, str], place: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        run_document(document(TREE, **jobs))
    (problem,) = map(str, caught.value.problems)
    assert place in problem
    assert all(word in problem for word in words), problem


def test_a_list_of_jobs_stands_in_the_place_of_a_workload() -> None:
    for text, words in (("model: mixtral-8x7b", "each job's own 'model'"), (f"workload: {PLAIN}", "jobs")):
        whole = document(TREE, a=f"workload: {PLAIN}")
        whole.overlay(documents.loads(text, "mine.yaml"))
        with pytest.raises(InputError, match=words):
            run_document(whole)


LONE = {
    "a NIC at half rate": ("{hardware: h800, nodes: 2, faults: [{node: 1, nic: 3, bandwidth: 50 %}]}", f"workload: {PLAIN}"),
    "thin uplinks": (TREE, f"workload: {PLAIN}"),
    "few bytes": (TREE, f"workload: {PLAIN.replace('16 MiB', '1 KiB')}"),
    "dispatch and combine of two groups": (
        "{hardware: h800, nodes: 4}",
        "model: deepseek-v3, layout: {ep: 16}, workload: {kind: all_to_all, tokens_per_rank: 1024, "
        "gate: {kind: zipf, exponent: 0.5}, kernel: {kind: two_hop}}",
    ),
    "all-reduce": (TREE, "workload: {kind: collective, op: all_reduce, bytes_per_rank: 400 MB}"),
    "flows": (TREE, "workload: {kind: flows, file: flows.csv}"),
}  # fmt: skip


@pytest.mark.parametrize("case", LONE)
def test_a_lone_job_reports_what_its_workload_reports_without_jobs(tmp_path: Path, case: str) -> None:
    """Metrics, what binds and where, and the bytes of every link."""
    (tmp_path / "flows.csv").write_text(FLOWS)
    cluster, keys = LONE[case]
    job = document(cluster, a=keys)
    lines = keys.replace(", layout:", "\nlayout:").replace(", workload:", "\nworkload:")
    whole = documents.loads(f"name: mine\ncluster: {cluster}\n{lines}\n", "mine.yaml")
    job.folder = whole.folder = tmp_path
    ran, own = run_document(job), run_document(whole)
    of_job, alone = (dict(flat(metrics)) for metrics in (ran["metrics"]["jobs"]["a"], own["metrics"]))
    for told, expected in ((of_job, alone), (alone, of_job)):
        for name, value in told.items():
            exact = isinstance(value, str) or value is None
            assert expected[name] == (value if exact else pytest.approx(value, rel=1e-13)), name
    for place, row in enumerate(own.get("flow_completion", [])):
        assert ran["jobs"]["a"]["flow_completion"][place] == pytest.approx(row, rel=1e-12)
    for links in (ran["links"], ran["jobs"]["a"]["links"]):
        assert {name: row["bytes"] for name, row in links.items()} == pytest.approx(
            {name: row["bytes"] for name, row in own["links"].items()}, rel=1e-13
        )


def flat(tree: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of all leaves."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def test_what_binds_a_job_is_what_others_fill_too() -> None:
    """Alone on uplinks of full rate NICs bind; next to another job that crosses the same thinner ones, uplinks do."""
    thin = TREE.replace("oversubscription: 4", "oversubscription: 2")
    jobs = {"a": f"use_nodes: [0, 4], workload: {PLAIN}", "b": f"use_nodes: [1, 2, 5, 6], workload: {PLAIN}"}
    own = run_document(document(thin, a=jobs["a"]))["metrics"]["jobs"]["a"]["exchange"]
    both = run_document(document(thin, **jobs))
    assert own["binding"] == "nic"
    assert both["metrics"]["jobs"]["a"]["exchange"]["binding"] == "leaf_uplink"
    up = [both["jobs"][name]["links"]["leaf0/up"]["bytes"] for name in jobs]
    assert sum(up) == pytest.approx(both["links"]["leaf0/up"]["bytes"], rel=1e-12)
    # Of 16 GPUs each sends half its bytes across, of 32 half of theirs: 8 and 16 times 8 MiB up from each leaf.
    assert up == pytest.approx([n * 8 * 2**20 for n in (8, 16)], rel=1e-9)


def test_stages_whose_links_come_and_go_are_no_jobs_next_to_others() -> None:
    fault = "[{node: 1, nic: 3, bandwidth: 50 %, until: 1 s}]"
    stages = (
        "gpus: 16, model: mixtral-8x7b, layout: {pp: 2, ep: 8}, workload: {kind: prefill, prompt_tokens: 2048, overlap: false, "
        "prompts_per_gpu: 2, kernel: {kind: two_hop}, gate: {kind: uniform, sampling: expected}}"
    )
    cluster = f"{{hardware: h800, nodes: 2, faults: {fault}}}"
    with pytest.raises(InfeasibleError, match=r"job fill: faults that come and go .* layout\.pp is 2"):
        resolve(document(cluster, fill=stages))
    resolve(document(cluster.replace(", until: 1 s", ""), fill=stages))


def test_ends_of_a_jobs_flows_are_written_beside_the_result_and_read_again(tmp_path: Path) -> None:
    """The second begins when the last byte of the first is there, which its next hop hears of a latency later."""
    (tmp_path / "flows.csv").write_text(FLOWS)
    jobs = document(
        TREE,
        a="use_nodes: [0, 1], workload: {kind: flows, file: flows.csv}",
        b=f"use_nodes: [2, 3], workload: {PLAIN}",
    )
    jobs.folder = tmp_path
    ran = run_document(jobs)
    save(tmp_path / "out", ran, with_report=False)
    assert "flow_completion" not in (tmp_path / "out" / "result.json").read_text()
    rows = read(tmp_path / "out")["jobs"]["a"]["flow_completion"]
    assert rows == [pytest.approx(row, abs=1e-6) for row in ran["jobs"]["a"]["flow_completion"]]
    ends_us = {int(flow): (released, done) for flow, released, done in rows}
    assert ends_us[2][0] > ends_us[1][1] > 1e8 / 50e9 * 1e6
