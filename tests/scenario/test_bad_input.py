"""Bad input: each problem at its file, line and column, with what was got, wanted and nearest; never a traceback."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sim import documents
from sim.cluster.hardware import load_hardware
from sim.errors import InfeasibleError, InputError, MoesimError
from sim.runs.result import check_expected
from sim.runs.run import run_document
from sim.scenario.resolve import resolve
from sim.scenario.settings import read, variants

GOOD = """\
name: mine
cluster:
  hardware: h800
  nodes: 2
model: deepseek-v3
layout: {ep: 16}
workload:
  kind: all_to_all
  tokens_per_rank: 16
  gate: {kind: group_limited, top_groups: 4}
  kernel: {kind: two_hop, comm_sms: 24}
"""
BARE = """\
name: mine
cluster:
  fabric: {kind: leaf_spine, hosts: 8, hosts_per_leaf: 4, spines: 4, link: 400 Gb/s}
workload: {kind: flows, file: flows.csv}
"""


def told(text: str, folder: Path | None = None) -> list[str]:
    """The problems of a scenario, as a person reads them."""

    def run() -> None:
        document = documents.loads(text, "mine.yaml")
        document.folder = folder
        check_expected(document, run_document(document))

    with pytest.raises(InputError) as caught:
        run()
    return [str(problem) for problem in caught.value.problems]


def test_the_scenarios_to_be_spoilt_are_good(tmp_path: Path) -> None:
    assert run_document(documents.loads(GOOD, "mine.yaml"))["metrics"]
    (tmp_path / "flows.csv").write_text("flow_id,src,dst,bytes,start_us\n1,0,5,1000,0\n")
    document = documents.loads(BARE, "mine.yaml")
    document.folder = tmp_path
    assert run_document(document)["metrics"]


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("model: deep", "modle: deep", "5:1: modle", ["unknown key", "did you mean model?"]),
        ("nodes: 2", "nodes: 2\n  nodes: 4", "5:3: cluster.nodes", ["a duplicate key", "line 4"]),
        ("name: mine\n", "", "1:1: got nothing", ["the key 'name'"]),
        ("nodes: 2", "nodes: 0", "4:10: cluster.nodes", ["got 0", "no GPU to run on"]),
        ("nodes: 2", "nodes: two", "4:10: cluster.nodes", ["'two'", "a whole number"]),
        ("h800", "h8000", "3:13: ", ["'h8000'", "did you mean h800?"]),
        ("deepseek-v3", "deepseek-v4", "5:8: ", ["'deepseek-v4'", "did you mean deepseek-v3?"]),
        ("{ep: 16}", "{ep: 5}", "6:14: layout.ep", ["got 5", "a divisor of the 16 ranks: 1, 2, 4, 8, 16"]),
        ("kind: all_to_all", "kind: all2all", "8:9: workload.kind", ["'all2all'", "did you mean all_to_all?"]),
        ("nodes: 2", "nodes: 2\n  fabric: {queue_pairs: 4}", "5:", ["got 4", "'routing: ecmp'"]),
        ("kind: two_hop", "kind: twohop", "11:18: workload.kernel.kind", ["did you mean two_hop?"]),
        ("comm_sms: 24", "comm_sm: 24", "11:27: workload.kernel.comm_sm", ["did you mean comm_sms?"]),
        ("comm_sms: 24", "comm_sms: 200", "11:37: workload.kernel.comm_sms", ["got 200", "at most 132"]),
        ("top_groups: 4", "top_groups: 9", "10:", ["9"]),
        ("top_groups: 4", "top_groups: 4, exponent: 1", "10:46: workload.gate.exponent", ["unknown key"]),
        ("group_limited, top_groups: 4", "zipf", "10:9: workload.gate", ["the key 'exponent'"]),
        ("tokens_per_rank: 16", "tokens_per_rank: 1.5", "9:20: workload.tokens_per_rank", ["1.5", "whole number"]),
        ("tokens_per_rank: 16", "tokens_per_rank: true", "9:20: workload.tokens_per_rank", ["True"]),
        ("tokens_per_rank: 16", "bytes_per_rank: 16", "9:19: workload.bytes_per_rank", ["got 16", "'16 GiB'"]),
        ("tokens_per_rank: 16", "bytes_per_rank: 16 gib", "9:19: workload.bytes_per_rank", ["'16 Gib'"]),
        ("  tokens_per_rank: 16\n", "", "8:3: workload", ["neither", "tokens_per_rank"]),
        ("nodes: 2", "nodes: 2\n  faults: [{node: 2, nic: 0, bandwidth: 0 B/s}]", "5:19: cluster.faults.0.node", ["0 to 1"]),
        ("nodes: 2", "nodes: 2\n  faults: [{rail: 8, bandwidth: 0 B/s}]", "5:19: cluster.faults.0.rail", ["0 to 7"]),
        ("nodes: 2", "nodes: 2\n  faults: [{rail: 0, bandwidth: 0}]", "5:33: cluster.faults.0.bandwidth", ["with its unit"]),
        ("nodes: 2", "nodes: 2\n  faults: [{rail: 0, bandwidth: -1 B/s}]", "5:33: cluster.faults.0.bandwidth", ["0 or more"]),
        ("nodes: 2", "nodes: 2\n  override: {gpu.scale_up.bandwidth: 400}", "5:38: ", ["with its unit"]),
        ("nodes: 2", "nodes: 2\n  override: {gpu.scaleup.bandwidth: 4 GB/s}", "5:37: ", ["did you mean scale_up?"]),
        ("nodes: 2", "nodes: 2\n  fabric: {kind: rail_optimised}", "5:18: cluster.fabric.kind", ["did you mean rail_optimized?"]),
        ("{ep: 16}", "{ep: 16, tp: 2}", "6:22: layout.tp", ["got 2"]),
        ("name: mine", "name: ../../etc", "1:7: name", ["../../etc"]),
        ("name: mine", "name: mine\nseed: -1", "2:7: seed", ["-1"]),
        ("name: mine", "name: mine\nexpect: {dispatch.time_s: {value: 3, tolerance: 1%}}", "2:35: expect.dispatch.time_s.value", ["a time"]),
        ("name: mine", "name: mine\nexpect: {dispatch.tme_s: {value: 3 us, tolerance: 1%}}", "2:", ["did you mean dispatch.time_s?"]),
        ("name: mine", "name: mine\nexpect: {dispatch.time_s: {value: null, tolerance: 1%}}", "2:35: expect.dispatch.time_s.value", ["got None; wanted a valid string or a valid number"]),
        ("name: mine", "name: mine\nexpect: {dispatch.time_s: {value: 3 us, tolerance: -1%}}", "2:52: expect.dispatch.time_s.tolerance", ["'-1%'", "0 or more"]),
        ("name: mine", "name: " + "m" * 81, "1:7: name", ["wanted at most 80 characters"]),
        ("name: mine", "name: mine\nfaults: []", "2:1: faults", ["did you mean cluster.faults?"]),
        ("kind: two_hop, comm_sms: 24", "kind: two_hop, num_sms: 24", "11:27: workload.kernel.num_sms", ["did you mean comm_sms?"]),
        ("nodes: 2", "nodes: 0", "4:10: cluster.nodes", ["got 0; wanted 1 or more"]),
        ("nodes: 2", "nodes: true", "4:10: cluster.nodes", ["got True; wanted a whole number"]),
        ("nodes: 2", "nodes: '2'", "4:10: cluster.nodes", ["got '2'; wanted a whole number"]),
        ("nodes: 2", "nodes: 2\n  fabric: true", "5:11: cluster.fabric: got True", ["wanted a mapping of keys"]),
        ("nodes: 2", "nodes: 2\n  fabric: {oversubscription: true}", "5:30: cluster.fabric.oversubscription", ["got True; wanted a valid number"]),
        ("nodes: 2", "nodes: 2\n  fabric: {oversubscription: 1e-9}", "5:30: cluster.fabric.oversubscription", ["0.001"]),
        ("deepseek-v3", "[a]", "5:8: model", ["got ['a']; wanted a valid string or a mapping of keys"]),
        ("kind: two_hop, comm_sms: 24", "kidn: two_hop", "11:12: workload.kernel.kidn", ["the key 'kind'", "did you mean kind?"]),
        ("kind: two_hop, comm_sms: 24", "kind: low_latency, nvlink: 3", "11:39: workload.kernel.nvlink", ["got 3; wanted true or false"]),
        ("kind: group_limited, top_groups: 4", "kind: dirichlet, alpha: 1e300", "10:34: workload.gate.alpha", ["1000000000"]),
        ("two_hop, comm_sms: 24}", "two_hop}\n  placement: {kind: eplb, redundant_experts: 1000000000}", "12:46: workload.placement.redundant_experts", ["131072"]),
        ("name: mine", "name: mine\nvariants: {a: {cluster.hardwear: h100}}", "2:16: ", ["unknown key 'hardwear'", "did you mean hardware?"]),
    ],
)  # fmt: skip
def test_a_problem_says_where_got_wanted_and_nearest(
    old: str, new: str, place: str, words: list[str]
) -> None:
    assert old in GOOD
    problems = told(GOOD.replace(old, new, 1))
    hit = [problem for problem in problems if problem.startswith(f"mine.yaml:{place}")]
    assert hit, problems
    for word in words:
        assert word in hit[0], problems


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("400 Gb/s", "400", "3:76: cluster.fabric.link", ["got 400", "'400 Gb/s'"]),
        ("400 Gb/s", "400 gb/s", "3:76: cluster.fabric.link", ["did you mean '400 Gb/s'?"]),
        ("400 Gb/s", "0 Gb/s", "3:76: cluster.fabric.link", ["more than 0"]),
        ("400 Gb/s", "400 Gb/s, oversubscription: 2", "3:104: cluster.fabric.oversubscription", ["hosts_per_leaf / spines = 1"]),
        ("400 Gb/s", "400 Gb/s, link_latency: -1 us", "3:100: cluster.fabric.link_latency", ["got '-1 us'", "0 or more"]),
        ("400 Gb/s", "400 Gb/s, switch_latency: -1 us", "3:102: cluster.fabric.switch_latency", ["got '-1 us'", "0 or more"]),
        ("400 Gb/s", "400 Gb/s, wire_per_packet: 100 B", "3:", ["payload_per_packet or more"]),
        ("spines: 4", "spine: 4", "3:59: cluster.fabric.spine", ["did you mean spines?"]),
        ("  fabric", "  hardware: h800\n  fabric", "3:3: cluster", ["without hardware"]),
    ],
)  # fmt: skip
def test_a_problem_of_a_bare_fabric(tmp_path: Path, old: str, new: str, place: str, words: list[str]) -> None:
    problems = told(BARE.replace(old, new, 1), tmp_path)
    hit = [problem for problem in problems if problem.startswith(f"mine.yaml:{place}")]
    assert hit, problems
    for word in words:
        assert word in hit[0], problems


def test_a_missing_csv_names_itself(tmp_path: Path) -> None:
    (problem,) = told(BARE, tmp_path)
    assert "flows.csv" in problem
    assert "no such file" in problem


def test_all_problems_of_a_scenario_are_told_together() -> None:
    text = (
        GOOD.replace("nodes: 2", "nodes: 2.5")
        .replace("ep: 16", "ep: 0")
        .replace("two_hop", "tow_hop")
        .replace("name", "nmae")
    )
    assert len(told(text)) == 5  # the unknown name and the missing one


def test_problems_across_branches_are_told_together() -> None:
    text = (
        GOOD.replace("ep: 16", "ep: 16, tp: 2, dp: 3")
        .replace("comm_sms: 24", "comm_sms: 999")
        .replace("top_groups: 4", "top_groups: 99")
    )
    problems = told(text)
    for key in ("layout.tp", "layout.dp", "workload.kernel.comm_sms", "gate"):
        assert any(key in problem for problem in problems), (key, problems)


def test_ep_must_divide_the_experts_and_the_nearest_repair_is_named() -> None:
    text = GOOD.replace("nodes: 2", "nodes: 3").replace("ep: 16", "ep: 24")
    (problem,) = told(text)
    assert (
        "mine.yaml:6:14: layout.ep: got 24; wanted a divisor of the 256 experts; or 8 redundant_experts"
        in problem
    )


def test_a_value_of_no_kind_that_would_do_is_one_problem() -> None:
    """Of several kinds that a key may have, each would be a line."""
    assert len(told(GOOD.replace("deepseek-v3", "3"))) == 1
    assert len(told(GOOD + "expect: {dispatch.time_s: {value: [], tolerance: 1%}}\n")) == 1


@pytest.mark.parametrize("source", ["{}", "[a]", "3"])
def test_a_source_that_is_no_word_is_a_problem_of_its_line(tmp_path: Path, source: str) -> None:
    text = (
        documents.shipped("hardware")["h800"]
        .read_text()
        .replace("source: profile_data}", f"source: {source}}}", 1)
    )
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(InputError, match=r"own\.yaml:7:\d+: gpu\.sms\.source: got .*; wanted a valid string"):
        load_hardware(tmp_path / "own.yaml")


def test_a_hardware_file_without_a_source_is_refused(tmp_path: Path) -> None:
    lines = documents.shipped("hardware")["h800"].read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  sms:"))
    lines[at] = "  sms: {value: 132, grade: measured}"
    (tmp_path / "own.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError) as caught:
        load_hardware(tmp_path / "own.yaml")
    assert f"own.yaml:{at + 1}:" in str(caught.value)
    assert "the key 'source'" in str(caught.value)


# --- --set and variants --------------------------------------------------------------------------------------------


def scenario_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_set_walks_the_tree_and_wins_over_variants(tmp_path: Path) -> None:
    path = scenario_file(tmp_path, GOOD + "variants: {a: {}, b: {cluster.nodes: 4, layout: {ep: 32}}}\n")
    found = {
        name: resolve(one) for name, one in variants(read(path, ["cluster.nodes=1", "layout.ep=8"])).items()
    }
    assert {name: (one.num_nodes, one.ep) for name, one in found.items()} == {"a": (1, 8), "b": (1, 8)}


def test_set_below_override_is_a_walk_too(tmp_path: Path) -> None:
    path = scenario_file(tmp_path, GOOD)
    settings = ["cluster.override.gpu.scale_up.bandwidth=450 GB/s", "cluster.override.gpu.sms=100"]
    hardware = resolve(read(path, settings)).hardware
    assert hardware is not None
    assert (hardware.gpu.scale_up.bandwidth_bytes_per_s, hardware.gpu.sms) == (450e9, 100)


@pytest.mark.parametrize(
    "setting",
    [
        "cluster.nodes", "=3", " =3", "cluster.nodes=", "cluster.nodes=[", "cluster.nodes=1: 2", "cluster.nodes.x=3",
        "cluster..nodes=3", ".=1", "nodes=3", "cluster=3", "workload.gate.0=1", "²=1", "cluster.faults.0.node=1", "name=",
        "workload=[]", "variants=3", "variants.a=3", "variants.a.b=3", "cluster.override=3", "cluster.override.x=3",
        "cluster.override.gpu=3", "cluster.override.gpu.scale_up=fast", "model={}", "model.hiden=7168", "cluster.nodes=!!python/none x",
        "workload.kernel.override.nic_efficiency_fraction=7", "workload.kernel.override=1", "seed=1e9", "expect.x=1", "a=&x *x",
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(tmp_path: Path, setting: str) -> None:
    path = scenario_file(tmp_path, GOOD)
    with pytest.raises(InputError) as caught:
        run_document(read(path, [setting]))
    assert caught.value.problems
    assert any(problem.where is not None for problem in caught.value.problems)


@pytest.mark.parametrize(
    "declared",
    ["3", "[]", "{a: 3}", "{a: {cluster.nodes: 0}}", "{a: {'': 1}}", "{a: {cluster.faults.9: {}}}",
     "{a: {'²': 1}}", "{a/b: {layout.ep: 3}}"],
)  # fmt: skip
def test_wrong_variants_are_named(declared: str) -> None:
    assert told(GOOD + f"variants: {declared}\n")


# --- what cannot run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nodes: 2", "nodes: 2\n  faults: [" + ", ".join(f"{{rail: {r}, bandwidth: 0 B/s}}" for r in range(8)) + "]", "no living rail"),
        ("nodes: 2", "nodes: 2\n  fabric: {kind: rail_only, nodes_per_leaf: 1}", "at most nodes_per_leaf = 1"),
        ("tokens_per_rank: 16", "tokens_per_rank: 1000000000", "16,000,000,000 tokens .* 'sampling: expected'"),
    ],
)  # fmt: skip
def test_what_no_machine_can_do_says_why(old: str, new: str, words: str) -> None:
    with pytest.raises(InfeasibleError, match=words):
        run_document(documents.loads(GOOD.replace(old, new), "mine.yaml"))


def test_ranks_that_exchange_with_all_others_are_bounded() -> None:
    text = "name: mine\ncluster: {hardware: h800, nodes: 725}\nworkload: {kind: all_to_all, bytes_per_rank: 1 MiB, kernel: {kind: nccl}}\n"
    with pytest.raises(
        InfeasibleError,
        match=r"EP groups 1 x layout\.ep 5,800 squared = 33,640,000 pairs .* limit is 33,554,432",
    ):
        run_document(documents.loads(text, "mine.yaml"))


# --- hostile trees -------------------------------------------------------------------------------------------------

RICH: dict[str, Any] = {
    "name": "x", "title": "t", "seed": 0, "fidelity": "flow",
    "cluster": {
        "hardware": "h800", "nodes": 2, "override": {"gpu.scale_up.bandwidth": "450 GB/s"},
        "fabric": {"kind": "multi_plane", "routing": "ecmp", "oversubscription": 2, "nodes_per_leaf": 1},
        "faults": [{"node": 0, "nic": 1, "bandwidth": "100 Gb/s"}, {"rail": 2, "bandwidth": "0 Gb/s"}],
    },
    "model": "deepseek-v3", "layout": {"ep": 16},
    "workload": {
        "kind": "all_to_all", "tokens_per_rank": 8,
        "gate": {"kind": "group_limited", "top_groups": 2, "num_groups": 2, "group_score": "max", "sampling": "tokens"},
        "kernel": {"kind": "low_latency", "override": {"nic_efficiency_fraction": 0.9}},
        "dispatch_dtype": "fp8", "combine_dtype": "bf16", "placement": {"kind": "eplb", "redundant_experts": 32},
    },
    "expect": {"dispatch.time_s": {"value": "1 ms", "tolerance": "10%"}},
    "variants": {"a": {}, "b": {"cluster.nodes": 4, "layout.ep": 32, "workload.gate": {"kind": "uniform"}}},
}  # fmt: skip
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 3, 7, 1e308, float("nan"), float("inf"), -0.5, "", "on", "1e9", "400", "400 GB/s", "0 s",
    "-1 B", "nan", "a" * 300, "..", ".", "/", "/dev/null", "\x00", "h100", "zipf", "flat", "nccl", "two_hop", "scale_up",
    "rail_only", "three_tier", "leaf_spine", "trace", "expected", "closed_form", [], {}, [1], [[]], {"a": 1}, {"": {}},
    {"kind": "uniform"}, {"kind": []}, {"kind": None}, {"kind": {}}, {"a.b": 1}, {"0": 1}, {"kind": "zipf", "exponent": 3.0},
    {"kind": "loads", "file": "/dev/null"}, {"kind": "trace", "file": "none.csv"}, {"kind": "nccl"}, {"value": "1 s"},
]  # fmt: skip


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def spoilt(seed: int) -> dict[str, Any]:
    """The rich scenario with one to three things removed, replaced, added or moved."""
    rng, tree = random.Random(seed), copy.deepcopy(RICH)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        path = rng.choice(list(places(tree)) or [()])
        parent: Any = tree
        for key in path[:-1]:
            parent = parent[key]
        if not path:
            continue
        match rng.randrange(10):
            case 0 | 1:
                del parent[path[-1]]
            case 2 if isinstance(parent, dict):
                parent[rng.choice(["zzz", "", "kind", "a.b", "0", "nodes", "bytes_per_rank"])] = (
                    copy.deepcopy(rng.choice(HOSTILE))
                )
            case _:
                parent[path[-1]] = copy.deepcopy(rng.choice(HOSTILE))
    return tree


@pytest.mark.parametrize("block", range(4))
def test_no_spoilt_scenario_ends_in_a_traceback(block: int) -> None:
    """It runs, or says what is wrong, each time in a place."""
    for seed in range(block * 40, (block + 1) * 40):
        tree = spoilt(seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                run_document(documents.loads(yaml.safe_dump(tree), "mine.yaml"))
        except InputError as error:
            assert error.problems, seed  # noqa: PT017
        except MoesimError:
            pass
