"""Notebooks of the documentation are run whole, and find what README and their pages say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import notebooks

pytestmark = pytest.mark.slow


@pytest.fixture
def names(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What the cells of a notebook leave."""
    return notebooks.run(notebooks.FOLDER / f"{request.param}.md", tmp_path)


@pytest.mark.parametrize("names", ["first-answer"], indirect=True)
def test_the_first_answer_is_that_nvlink_binds_in_a_node_and_the_nic_beyond(names: dict[str, Any]) -> None:
    first, second = names["result"].finding()
    assert first.startswith("At EP 8 combine takes")
    assert second == "From EP 32 on it is the same on both; the NIC binds on both."
    assert names["binding"][200] == "scale_up"
    assert names["binding"][450] == "nic"
    assert names["times_ms"][100] == pytest.approx(
        2 * names["times_ms"][200], rel=0.06
    )  # bytes over the rate


@pytest.mark.parametrize("names", ["nvlink-per-nic-byte"], indirect=True)
def test_designs_below_three_nvlink_bytes_a_nic_byte_are_as_fast_on_both(names: dict[str, Any]) -> None:
    assert names["limit"] == pytest.approx(200 * 0.675 / (50 * 0.9), rel=0.01)
    for asked, ratio, _, _ in names["points"]:
        assert ratio == pytest.approx(max(1.0, asked / 3.0), rel=0.03)
    v3 = {ep: round(asked, 1) for asked, _, ep, groups in names["points"] if groups == 4}
    assert v3 == {16: 5.1, 32: 2.6, 64: 1.9}


@pytest.mark.parametrize("names", ["what-a-choice-costs"], indirect=True)
def test_tensor_parallelism_is_what_the_cut_takes_away(names: dict[str, Any]) -> None:
    h800 = names["h800"]
    gaps = [h800["gap_fraction"], *(h800["held"][f"tp{size}"]["gap_fraction"] for size in (2, 4, 8))]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.01
    assert gaps[-1] > 0.3
    assert names["found"].figure("search").data


@pytest.mark.parametrize("names", ["requests"], indirect=True)
def test_decode_apart_keeps_its_pace_and_together_has_its_first_token_sooner(names: dict[str, Any]) -> None:
    for result in names["served"].values():
        apart, together = (result["variants"][name]["metrics"] for name in ("apart", "together"))
        assert apart["tpot"]["p50_s"] < together["tpot"]["p50_s"]
        assert apart["ttft"]["p50_s"] > together["ttft"]["p50_s"]


def test_every_notebook_is_run_by_a_test_and_stands_in_the_index() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    index = (notebooks.FOLDER.parent / "index.md").read_text(encoding="utf-8")
    assert len(notebooks.PAGES) >= 4
    for page in notebooks.PAGES:
        assert f'["{page.stem}"]' in tests
        assert f"notebooks/{page.stem}" in index
