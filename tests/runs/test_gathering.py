"""Gathered completions: faster, and off by no more than is stated with the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import documents
from sim.errors import InputError
from sim.runs.run import run_scenario
from sim.scenario.resolve import resolve


def run(folder: Path, hosts: int, fidelity: str) -> dict[str, Any]:
    """Unequal flows between all pairs of hosts of one leaf."""
    src, dst = np.nonzero(~np.eye(hosts, dtype=bool))
    sizes = np.random.default_rng(1).lognormal(14, 0.6, len(src))
    rows = [
        f"{i},{a},{b},{size:.0f},0" for i, (a, b, size) in enumerate(zip(src, dst, sizes, strict=True), 1)
    ]
    (folder / "flows.csv").write_text("\n".join(["flow_id,src,dst,bytes,start_us", *rows]))
    document = documents.loads(
        f"name: x\nfidelity: {fidelity}\n"
        f"cluster: {{fabric: {{kind: leaf_spine, hosts: {hosts}, hosts_per_leaf: {hosts}, spines: {hosts}, link: 400 Gb/s}}}}\n"
        "workload: {kind: flows, file: flows.csv}\n",
        "mine.yaml",
    )
    document.folder = folder
    return run_scenario(resolve(document))


def off(gathered: dict[str, Any], exact: dict[str, Any]) -> np.ndarray:
    """Error of each flow's time."""
    ours, theirs = (np.array(result["flow_completion"])[:, 2] for result in (gathered, exact))
    return np.asarray(np.abs(ours - theirs) / theirs)


@pytest.mark.parametrize("gather", ["0.1 %", "1 %"])
def test_the_stated_error_is_about_the_true_one(tmp_path: Path, gather: str) -> None:
    exact, gathered = (run(tmp_path, 14, f) for f in ("flow", f"{{flow: {{gather: {gather}}}}}"))
    stated = gathered["gathering"]
    true = off(gathered, exact)
    assert true.mean() == pytest.approx(stated["mean_error_fraction"], rel=0.5)
    assert 0 < true.mean() < stated["gather_fraction"]
    assert "gathering" not in exact


@pytest.mark.slow
def test_sixteen_thousand_unequal_flows_on_128_hosts_are_within_0_15_percent(tmp_path: Path) -> None:
    exact, gathered = (run(tmp_path, 128, f) for f in ("flow", "{flow: {gather: 0.1 %}}"))
    true = off(gathered, exact)
    assert len(true) == 16_256
    assert true.mean() <= 0.0015
    assert true.mean() == pytest.approx(gathered["gathering"]["mean_error_fraction"], rel=0.25)


def test_a_gathered_collective_is_as_exact_as_its_shares_are_by_bytes(tmp_path: Path) -> None:
    """No completion frees what holds another flow back: nothing to gather, and nothing lost."""
    text = "name: x\nfidelity: {}\ncluster: {{hardware: h800, nodes: 4}}\nlayout: {{tp: 4}}\n" \
        "workload: {{kind: collective, op: all_reduce, bytes_per_rank: 1 GiB, group: tp}}\n"  # fmt: skip
    exact, gathered = (
        run_scenario(resolve(documents.loads(text.format(f), "x.yaml")))
        for f in ("flow", "{flow: {gather: 1 %}}")
    )
    assert gathered["metrics"] == exact["metrics"]
    assert gathered["gathering"]["worst_error_fraction"] == 0.0


@pytest.mark.parametrize(
    ("fidelity", "words"),
    [("{flow: {gather: 1 %}}", "fidelity.flow.gather: got 1 %; wanted 0: flows of training are solved exactly"),
     ("{flow: {gathr: 1 %}}", "did you mean gather?"),
     ("flo", "did you mean flow?")],
)  # fmt: skip
def test_a_fidelity_that_cannot_be_is_refused(fidelity: str, words: str) -> None:
    text = documents.shipped("scenarios")["mixtral-training"].read_text(encoding="utf-8")
    with pytest.raises(InputError) as caught:
        resolve(documents.loads(f"fidelity: {fidelity}\n{text}", "mine.yaml"))
    assert words in str(caught.value)
