"""The fewest GPUs that serve a model: memory by hand, limits that only ever ask for more, and the command."""

from __future__ import annotations

from typing import Any

import pytest

import sim
from command import Moesim
from sim.answers.size import Asked, size
from sim.answers.size_document import SizesSpec
from sim.errors import DoesNotFitError


def fewest(
    model: str, on: str, context: int = 4096, users: int = 1, tpot_s: float | None = None
) -> dict[str, Any]:
    return dict(size(model, [on], Asked(context, users, tpot_s))["machines"][on])


def test_memory_alone_asks_for_two_gpus_of_80_gb_and_one_of_103() -> None:
    """Llama 3.1 70B in FP8: 68.5 G parameters of a byte in layers, 2.1 G of two bytes at both ends, and 8 GB that are reserved."""
    needs = 68.5 + 2 * 2.1 + 8
    assert 80 < needs < 97871 * 2**20 / 1e9
    assert fewest("llama-3.1-70b", "h800")["gpus"] == 2
    assert fewest("llama-3.1-70b", "h20")["gpus"] == 1


def test_the_answer_runs_as_a_scenario_and_the_number_below_does_not() -> None:
    found = fewest("qwen3-235b-a22b", "h800", 32768, 20)
    metrics = sim.run(found["scenario"])["metrics"]
    assert metrics["tpot_s"] == found["tpot_s"]
    assert found["memory_bytes"] <= found["memory_capacity_bytes"] == 80e9
    assert found["max_users"] >= 20
    smaller = {"cluster.gpus": found["smaller"]["gpus"], "cluster.nodes": 1}
    for tp in (1, 2, 4):
        fewer = {**smaller, "layout": {"tp": tp, "ep": found["smaller"]["gpus"]}}
        with pytest.raises(DoesNotFitError):
            sim.run(found["scenario"], fewer)


def test_more_users_longer_contexts_and_tighter_limits_never_ask_for_fewer() -> None:
    model, on = "qwen3-30b-a3b", "h800"
    by_users = [fewest(model, on, 32768, users)["gpus"] for users in (1, 12, 13, 60)]
    by_context = [fewest(model, on, context, 12)["gpus"] for context in (4096, 32768, 131072)]
    by_limit = [fewest(model, on, 32768, 12, limit)["gpus"] for limit in (1.0, 0.015, 0.0125)]
    for counts in (by_users, by_context, by_limit):
        assert counts == sorted(counts)
        assert counts[0] == 1 < counts[-1]


def test_the_limit_is_met_and_the_number_below_misses_it() -> None:
    found = fewest("qwen3-30b-a3b", "h800", 32768, 10, 0.015)
    assert found["tpot_s"] <= 0.015
    assert found["smaller"] == {"gpus": 1, "reason": "a token takes 18.9 ms"}


def test_a_limit_that_no_number_meets_ends_the_search_with_its_reason() -> None:
    found = fewest("qwen3-30b-a3b", "h800", tpot_s=1e-6)
    assert found["gpus"] is None
    assert "no number of GPUs is faster than" in found["reason"]


def test_the_command_tells_the_fewest_first_and_why_no_fewer(moesim: Moesim) -> None:
    said = moesim("size", "llama-3.1-70b", "--hardware", "h800,h20", "--context", "4K", "--users", "2")
    assert said.code == 0
    text = " ".join(said.err.split())
    assert "One H20 serves llama-3.1-70b to 2 users with 4,096 tokens each" in text
    assert text.index("One H20 serves") < text.index("2 H800 serve") < text.index("One H800 does not:")
    told = moesim("size", "llama-3.1-70b", "--hardware", "h20", "--context", "4K", "--json").json
    assert (told["schema"], told["machines"]["h20"]["gpus"]) == ("moesim.size/1", 1)
    SizesSpec.model_validate(told)
    nowhere = size("qwen3-30b-a3b", ["h800"], Asked(4096, 1, 1e-6))
    assert SizesSpec.model_validate(nowhere).machines["h800"].gpus is None


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("no-model",), "model"),
        (("qwen3-30b-a3b", "--hardware", "h900"), "h800"),
        (("qwen3-30b-a3b", "--hardware", ","), "machines, like"),
        (("qwen3-30b-a3b", "--context", "32 potatoes"), "32K"),
        (("qwen3-30b-a3b", "--context", "0"), "32K"),
        (("qwen3-30b-a3b", "--tpot", "50"), "50 ms"),
        (("qwen3-30b-a3b", "--tpot", "-1 ms"), "50 ms"),
        (("qwen3-30b-a3b", "--users", "0"), "1"),
    ],
)
def test_what_is_wrong_is_told_with_what_is_wanted(
    moesim: Moesim, arguments: tuple[str, ...], wanted: str
) -> None:
    said = moesim("size", *arguments)
    assert said.code == 2
    assert wanted in said.err


def test_where_no_machine_serves_the_command_says_so(moesim: Moesim) -> None:
    said = moesim("size", "qwen3-30b-a3b", "--hardware", "h800", "--tpot", "1 us")
    assert said.code == 3
    assert "No number of H800 serves qwen3-30b-a3b so" in " ".join(said.err.split())
