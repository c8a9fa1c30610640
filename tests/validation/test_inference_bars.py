"""The bars of inference against what DeepSeek published of prefill and decode on H800."""

from __future__ import annotations

from typing import Any

import pytest

import shared

pytestmark = pytest.mark.xdist_group("published")


def rows(group: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["id"], row["quantity"]): row for row in shared.group(group)["rows"]}


def test_the_bound_by_exchanges_is_met_exactly() -> None:
    found = rows("tpot_bound")
    assert len(found) == 6
    assert all(row["ok"] for row in found.values())


@pytest.mark.slow
def test_prefill_of_the_profile_is_within_8_percent() -> None:
    assert abs(rows("prefill")["profile-ep32", "tokens_per_s_per_node"]["error_fraction"]) <= 0.08


@pytest.mark.slow
def test_production_prefill_is_below_what_its_nodes_can_do() -> None:
    assert rows("prefill")["production-ep32", "tokens_per_s_per_node"]["error_fraction"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "metric", "bar"),
    [
        ("profile-ep128", "step_time_s", 0.12),
        ("production-ep144", "tokens_per_s_per_user", 0.12),
        ("production-ep144-accepts-60", "tokens_per_s_per_user", 0.12),
        ("production-ep144-accepts-80", "tokens_per_s_per_user", 0.12),
        ("batch-ep144", "max_batch_per_gpu", 0.10),
        ("cache-ep144", "kv_cache_bytes", 0.0),
    ],
)
def test_decode_is_within_its_bar(run: str, metric: str, bar: float) -> None:
    assert abs(rows("decode")[run, metric]["error_fraction"]) <= bar


@pytest.mark.slow
def test_the_one_token_reading_of_the_profile_is_printed_and_not_counted() -> None:
    row = rows("decode")["profile-ep128-one-token", "step_time_s"]
    assert row["bar"] is None


@pytest.mark.slow
def test_a_spread_that_meets_the_pair_of_prefill_meets_what_the_balancer_gives() -> None:
    pair = rows("sglang_prefill")
    assert abs(pair["even", "tokens_per_s_per_node"]["error_fraction"]) <= 0.15
    [ratio] = [row for (name, _), row in pair.items() if name == "eplb-over-even"]
    assert ratio["use"] == "calibration"
    assert abs(ratio["error_fraction"]) <= 0.02
    speedups = [row for row in rows("eplb").values() if row["bar"]]
    assert len(speedups) == 2
    assert all(row["use"] == "calibration" and abs(row["error_fraction"]) <= 0.15 for row in speedups)
