"""Serving next to other jobs: it meets them on the links that both cross, in the states that these have, and nowhere else."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from sim import documents
from sim.engine.link_states import States, together
from sim.errors import InputError
from sim.runs.run import run_document
from sim.runs.serving import serving_beside
from sim.scenario.resolve import resolve
from sim.schedule.collectives import HEADERS

TREE = "{{hardware: h800, nodes: 8, fabric: {{kind: fat_tree, nodes_per_leaf: 4, oversubscription: {ratio}}}{more}}}"
PLAN = "gate: {kind: uniform, sampling: expected}, overlap: false"
FIXED = "prompt: {kind: fixed, mean: 2000}, output: {kind: fixed, mean: 20}"
USERS = (
    f"model: deepseek-v2-lite, workload: {{kind: serving, arrivals: {{kind: poisson, requests: 12, requests_per_s: 10, {FIXED}}}, "
    f"prefill: {{ep: EP, plan: {{{PLAN}, kernel: {{kind: two_hop}}}}}}, "
    f"decode: {{instances: NUM, ep: EP, requests_per_gpu: 16, plan: {{{PLAN}, kernel: {{kind: low_latency}}}}}}}}"
)
ONE, APART = USERS.replace("EP", "16").replace("NUM", "0"), USERS.replace("EP", "8").replace("NUM", "1")
"""16 GPUs that do both, or 8 that prefill and 8 that decode."""
BUSY = "{kind: flows, file: busy.csv}"
EXCHANGE = "{kind: all_to_all, bytes_per_rank: 64 MiB, kernel: {kind: nccl}}"


@lru_cache(maxsize=32)
def run(folder: Any, ratio: int, more: str = "", **jobs: str) -> dict[str, Any]:
    rows = "".join(f"  - {{name: {name}, {text}}}\n" for name, text in jobs.items())
    cluster = TREE.format(ratio=ratio, more=more)
    whole = documents.loads(f"name: mine\ncluster: {cluster}\njobs:\n{rows}", "mine.yaml")
    whole.folder = folder
    return run_document(whole)


@lru_cache(maxsize=32)
def alone(ratio: int, nodes: str, users: str, more: str = "") -> dict[str, Any]:
    """Metrics of serving as a scenario of its own."""
    cluster = TREE.format(ratio=ratio, more=f", use_nodes: {nodes}{more}")
    keys = users.replace(", workload:", "\nworkload:")
    metrics: dict[str, Any] = run_document(
        documents.loads(f"name: mine\ncluster: {cluster}\n{keys}\n", "mine.yaml")
    )["metrics"]
    return metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Flows between the two nodes of a job, each way, that fill an uplink of 50 GB/s for 0.4 s: from one GPU, or from all eight."""
    path = tmp_path_factory.mktemp("beside")
    for name, gpus in (("lone", 1), ("busy", 8)):
        pairs = [pair for i in range(gpus) for pair in ((i, 8 + i), (8 + i, i))]
        rows = [f"{n},{src},{dst},{20_000_000_000 // gpus},0" for n, (src, dst) in enumerate(pairs)]
        (path / f"{name}.csv").write_text("\n".join(["flow_id,src,dst,bytes,start_us", *rows, ""]))
    return path


@pytest.mark.parametrize(("nodes", "users"), [("[4, 5]", ONE), ("[4, 6]", APART)])
def test_on_links_of_its_own_serving_is_what_it_is_alone_and_so_is_the_other(
    folder: Any, nodes: str, users: str
) -> None:
    """Each on a leaf of its own: to the last digit."""
    both = run(
        folder, 4, train=f"use_nodes: [0, 1], workload: {EXCHANGE}", users=f"use_nodes: {nodes}, {users}"
    )
    lone = run(folder, 4, train=f"use_nodes: [0, 1], workload: {EXCHANGE}")
    assert both["metrics"]["jobs"]["users"] == alone(4, nodes, users)
    assert both["metrics"]["jobs"]["train"] == lone["metrics"]["jobs"]["train"]
    assert both["sharing"]["moved_fraction"] == 0.0


@pytest.mark.parametrize(("file", "ratio"), [("busy", 64), ("lone", 36)])
def test_passes_get_of_a_full_uplink_what_their_nics_are_of_all_that_send_over_it(
    folder: Any, file: str, ratio: int
) -> None:
    """Eight next to eight that want all at all times have half of it, next to one eight ninths: as on uplinks of 64:1 and 36:1."""
    busy = f"use_nodes: [0, 4], workload: {BUSY.replace('busy', file)}"
    both = run(folder, 32, busy=busy, users=f"use_nodes: [1, 5], {ONE}")
    thick, thin = (alone(each, "[1, 5]", ONE) for each in (32, ratio))
    for name in ("ttft", "tpot", "response"):
        assert thin[name]["mean_s"] > (1.05 if ratio == 64 else 1.005) * thick[name]["mean_s"]
        assert both["metrics"]["jobs"]["users"][name]["mean_s"] == pytest.approx(
            thin[name]["mean_s"], rel=1e-3
        )


def test_kv_that_crosses_a_full_uplink_gets_half_of_it(folder: Any) -> None:
    """Of 25 GB/s: a prompt's bytes take as long again as they do alone."""
    beside = run(folder, 64, busy=f"use_nodes: [0, 4], workload: {BUSY}", users=f"use_nodes: [1, 5], {APART}")
    times_s = [
        metrics["kv_transfer"]["p50_s"]
        for metrics in (alone(64, "[1, 5]", APART), beside["metrics"]["jobs"]["users"])
    ]
    size = 2000 * 27 * 576 * 2 * HEADERS  # a latent of 512 and a key of 64 in each of 27 layers, in BF16
    assert times_s[1] - times_s[0] == pytest.approx(size / 12.5e9 - size / 25e9, rel=1e-3)


def test_a_flow_next_to_serving_gets_what_its_states_leave(folder: Any) -> None:
    """The flow ends at its bytes over the rate that is left; the rate is as much lower as serving fills the uplink, or less."""
    jobs = {"busy": f"use_nodes: [0, 4], workload: {BUSY}", "users": f"use_nodes: [1, 5], {ONE}"}
    both, lone = run(folder, 32, **jobs), run(folder, 32, busy=jobs["busy"])
    ends_s = [each["metrics"]["jobs"]["busy"]["completion_time_s"] for each in (lone, both)]
    load = max(
        both["jobs"]["users"]["links"][f"leaf0/{way}"]["utilisation_fraction"] for way in ("up", "down")
    )
    assert load > 0.005
    assert pytest.approx(ends_s[0], rel=1e-3) == 20e9 / 50e9
    assert 1.0 - load <= ends_s[0] / ends_s[1] + 1e-6
    assert ends_s[0] / ends_s[1] < 1.0 - 0.2 * load


@pytest.mark.parametrize("ratio", [1, 4, 16])
def test_nobody_is_faster_next_to_others_than_alone(folder: Any, ratio: int) -> None:
    jobs = {
        "train": f"use_nodes: [0, 4], workload: {EXCHANGE}",
        "users": f"use_nodes: [1, 5], {ONE}",
        "others": f"use_nodes: [2, 6], {APART}",
    }
    metrics = run(folder, ratio, **jobs)["metrics"]["jobs"]
    for name, users in (("users", ONE), ("others", APART)):
        own = alone(ratio, "[1, 5]" if name == "users" else "[2, 6]", users)
        for time in ("ttft", "tpot", "response"):
            for key in ("mean_s", "p50_s", "p99_s"):
                assert metrics[name][time][key] >= own[time][key] * (1.0 - 1e-9)
        assert metrics[name]["lower_bound_s"] == own["lower_bound_s"] <= metrics[name]["makespan_s"]
    train = run(folder, ratio, train=jobs["train"])["metrics"]["jobs"]["train"]["exchange"]
    assert metrics["train"]["exchange"]["completion_time_s"] >= train["completion_time_s"] * (1.0 - 1e-9)


def test_loads_of_all_jobs_add_up_to_those_of_the_links(folder: Any) -> None:
    """The exchange repeats until the last request has ended."""
    result = run(
        folder, 16, train=f"use_nodes: [0, 4], workload: {EXCHANGE}", users=f"use_nodes: [1, 5], {ONE}"
    )
    jobs, whole = result["jobs"], result["links"]
    end_s = result["metrics"]["completion_time_s"]
    assert result["timeline"]["jobs"]["users"] == [[0.0, end_s]]
    for name, row in whole.items():
        parts = [own["links"][name]["utilisation_fraction"] for own in jobs.values() if name in own["links"]]
        assert sum(parts) == pytest.approx(row["utilisation_fraction"], rel=1e-9)
    # Tokens of a pass reach another node with a chance of one half of 64 experts, 6 of them chosen: 1 - C(32, 6)/C(64, 6).
    assert jobs["users"]["links"]["leaf0/up"]["bytes"] == pytest.approx(
        jobs["users"]["links"]["leaf1/up"]["bytes"], rel=1e-9
    )


def test_states_of_a_link_carry_what_all_instances_and_kv_put_on_it_together() -> None:
    """16 GPUs that prefill and 16 that decode, half of each below either leaf: passes of both cross its uplink, and KV."""
    keys = USERS.replace("EP", "16").replace("NUM", "1").replace(", workload:", "\nworkload:")
    cluster = TREE.format(ratio=4, more=", use_nodes: [0, 4, 5, 1]")
    scenario = resolve(documents.loads(f"name: mine\ncluster: {cluster}\n{keys}\n", "mine.yaml"))
    ran = serving_beside(scenario).run((), lambda _: None)
    capacity = scenario.cluster().capacity
    assert len(ran.load.states) > 1
    for row, states in ran.load.states.items():
        assert (states.part * states.rate).sum() == pytest.approx(
            ran.load.used[row] / capacity[row] / ran.span_s, rel=1e-9
        )


def test_a_slow_nic_and_a_full_uplink_slow_serving_down_together(folder: Any) -> None:
    fault = ", faults: [{node: 5, nic: 3, bandwidth: 25 %}]"
    jobs = {"busy": f"use_nodes: [0, 4], workload: {BUSY}", "users": f"use_nodes: [1, 5], {ONE}"}
    worse = run(folder, 8, fault, **jobs)["metrics"]["jobs"]["users"]["ttft"]["mean_s"]
    others = [
        run(folder, 8, **jobs)["metrics"]["jobs"]["users"]["ttft"]["mean_s"],
        alone(8, "[1, 5]", ONE, fault)["ttft"]["mean_s"],
    ]
    assert worse >= max(others) * (1.0 - 1e-6)
    assert others[1] > 1.01 * alone(8, "[1, 5]", ONE)["ttft"]["mean_s"]


def test_a_gpu_that_dies_next_to_a_full_uplink_is_what_it_is_on_one_of_half_the_rate(folder: Any) -> None:
    """A fault of nodes of one job is not asked of another, which has no GPU that computes."""
    fault, users = (
        ", faults: [{node: 5, clock: 0 %, from: 0.5 s, until: 1 s}]",
        ONE.replace("requests: 12", "requests: 24"),
    )
    jobs = {"busy": f"use_nodes: [0, 4], workload: {BUSY}", "users": f"use_nodes: [1, 5], {users}"}
    beside = run(folder, 32, fault, **jobs)["metrics"]["jobs"]["users"]
    thin = alone(64, "[1, 5]", users, fault)
    assert beside["down_s"] == thin["down_s"] == pytest.approx(0.5)
    assert beside["restarts"] == thin["restarts"] > 0
    assert beside["ttft"]["mean_s"] == pytest.approx(thin["ttft"]["mean_s"], rel=2e-3)
    with pytest.raises(InputError, match="flows has nothing that 'clock' makes slower"):
        run(folder, 32, fault.replace("5", "0", 1), **jobs)


def states(spans: list[float], rates: list[float], over_s: float, senders: float = 8.0) -> States:
    took_s, rate = np.array(spans), np.array(rates)
    return States.from_spans(took_s, rate, np.full(len(spans), senders), over_s, float((took_s * rate).sum()))


def test_what_states_leave() -> None:
    """A job that takes a link whole for half of the time, and another that takes a quarter of it at all times; eight NICs each."""
    half, quarter = states([1.0], [1.0], 2.0), states([3.0], [0.25], 3.0)
    assert half.left_to_short(8) == pytest.approx(1 / (0.5 / 1.0 + 0.5 / 0.5))
    assert half.left_to_long(8) == pytest.approx(0.5 * 1.0 + 0.5 * 0.5)
    assert half.left_to_long(24) == pytest.approx(0.5 * 1.0 + 0.5 * 0.75)
    assert quarter.left_to_short(8) == quarter.left_to_long(8) == pytest.approx(0.75)
    both = together([{0: half}, {0: quarter}])[0]
    # Next to one of them three quarters are left; next to both, a third.
    assert both.left_to_long(8) == pytest.approx(0.5 * 0.75 + 0.5 / 3)
    assert both.mean_senders == pytest.approx(0.5 * 8 + 0.5 * 16)


def shared_s(gap_s: float, size_s: float) -> tuple[float, float]:
    """Mean time of a short transfer, and of a burst of 1 s that comes 1 s after the one before, on a link that both share evenly."""
    rng = np.random.default_rng(0)
    short, burst, wait_s, silent_s = 0.0, 0.0, gap_s, 1.0
    begun, took, now = {"short": 0.0, "burst": 0.0}, {"short": [], "burst": []}, 0.0
    while len(took["burst"]) < 200:
        rate = 0.5 if short and burst else 1.0
        step = min(short / rate if short else wait_s, burst / rate if burst else silent_s)
        now += step
        if short:
            short -= rate * step
            if short < 1e-12:
                took["short"].append(now - begun["short"])
                short, wait_s = 0.0, rng.exponential(gap_s)
        elif (wait_s := wait_s - step) < 1e-12:
            short, begun["short"] = size_s, now
        if burst:
            burst -= rate * step
            if burst < 1e-12:
                took["burst"].append(now - begun["burst"])
                burst, silent_s = 0.0, 1.0
        elif (silent_s := silent_s - step) < 1e-12:
            burst, begun["burst"] = 1.0, now
    return float(np.mean(took["short"])), float(np.mean(took["burst"]))


@pytest.mark.parametrize(("gap_s", "size_s"), [(0.03, 0.0015), (0.01, 0.002)])
def test_states_leave_both_what_they_have_when_every_begin_and_end_is_shared_anew(
    gap_s: float, size_s: float
) -> None:
    """Rounds of the law against every byte in time.

    It counts as many short transfers in a second next to a burst as in one without; in truth those that take longer are fewer, and
    are under way for more of the burst.
    """
    of_short, of_burst = 1.0, 1.0
    for _ in range(30):
        of_burst = states([size_s / of_short], [of_short], gap_s + size_s / of_short).left_to_long(8)
        of_short = states([1.0 / of_burst], [of_burst], 1.0 + 1.0 / of_burst).left_to_short(8)
    short_s, burst_s = shared_s(gap_s, size_s)
    assert 1.0 <= size_s / of_short / short_s <= 1.03
    assert 0.96 <= 1.0 / of_burst / burst_s <= 1.0
    assert short_s > 1.4 * size_s


def test_many_states_are_few_that_carry_as_much_and_silence_stays() -> None:
    spans, rates = np.arange(1.0, 1001.0), np.linspace(0.001, 0.9, 1000)
    many = states(spans.tolist(), rates.tolist(), 2 * float(spans.sum()))
    assert len(many.part) <= 65
    assert many.part.sum() == pytest.approx(1.0)
    assert (many.part * many.rate).sum() == pytest.approx(float((spans * rates).sum() / (2 * spans.sum())))
    assert many.part[many.senders == 0].sum() == pytest.approx(0.5)


def test_experts_apart_span_pools_and_are_no_job() -> None:
    pools = (
        "{pools: {a: {hardware: h800, nodes: 4}, b: {hardware: h20, nodes: 2}, c: {hardware: h20, nodes: 2}}}"
    )
    users = ONE.replace("decode: {instances: 0, ep: 16", "decode: {afd: {attention: b, experts: c}")
    text = f"name: mine\ncluster: {pools}\njobs:\n  - {{name: users, pool: a, {users}}}\n"
    with pytest.raises(InputError, match="afd"):
        resolve(documents.loads(text, "mine.yaml"))
