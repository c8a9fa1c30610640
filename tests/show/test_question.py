"""The question of a scenario: what is wrong with it is told, and what answers it says numbers, why, and where it turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.errors import InputError
from sim.scenario import settings as scenario_settings
from sim.show.pages.report import report_html
from sim.show.views.question import question_of
from sim.show.views.run import views_of
from sim.show.words import run as words
from sim.show.words.question import answer


def document(
    values: dict[tuple[str, int], tuple[float, str]], metric: str = "combine.time_s"
) -> dict[str, Any]:
    """A result with a variant for each hardware and EP."""
    way, name = metric.split(".")
    return {
        "question": {
            "ask": "Which?",
            "compare": "cluster.hardware",
            "over": "layout.ep",
            "metric": metric,
        },
        "variants": {
            f"{machine}-{ep}": {
                "scenario": {"cluster": {"hardware": machine}, "layout": {"ep": ep}},
                "metrics": {way: {name: value, "binding": binding}},
            }
            for (machine, ep), (value, binding) in values.items()
        },
    }


def said(values: dict[tuple[str, int], tuple[float, str]], metric: str = "combine.time_s") -> list[str]:
    question = question_of(document(values, metric))
    assert question is not None
    return answer(question)


def test_the_answer_has_both_values_their_ratio_what_binds_and_where_it_turns() -> None:
    values = {
        ("h800", 8): (2e-3, "scale_up"), ("h100", 8): (1e-3, "scale_up"),
        ("h800", 16): (3e-3, "scale_up"), ("h100", 16): (2e-3, "nic"),
        ("h800", 32): (4e-3, "nic"), ("h100", 32): (4e-3, "nic"),
        ("h800", 64): (5e-3, "nic"), ("h100", 64): (5.01e-3, "nic"),
    }  # fmt: skip
    assert said(values) == [
        "At EP 8 combine takes 2 ms on H800 and 1 ms on H100, 2.00 times as long on H800 as on H100; NVLink binds on both.",
        "From EP 32 on it is the same on both; the NIC binds on both.",
    ]


def test_values_over_which_runs_vary_are_in_their_order_not_that_of_the_file() -> None:
    values = {
        (machine, ep): (time, "nic")
        for ep in (64, 8, 32)
        for machine, time in (("h800", 1e-3), ("h100", 1e-3 if ep > 8 else 5e-4))
    }
    assert said(values)[1].startswith("From EP 32 on")


def test_what_never_differs_is_said_in_one_sentence() -> None:
    values = {(machine, ep): (1e-3, "nic") for machine in ("h800", "h100") for ep in (8, 16)}
    assert said(values) == [
        "H800 and H100 have the same combine throughout, 1 ms at EP 8 and 1 ms at EP 16; the NIC binds on both."
    ]


@given(
    st.dictionaries(st.tuples(st.sampled_from(["h800", "h100", "h20"]), st.sampled_from([8, 16, 32])),
                    st.tuples(st.floats(1e-6, 10), st.sampled_from(["nic", "scale_up", "copy_sms", "latency"])), min_size=2)
)  # fmt: skip
def test_no_sentence_names_a_key_or_a_variant(values: dict[tuple[str, int], tuple[float, str]]) -> None:
    question = question_of(document(values))
    for sentence in answer(question) if question else ():
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert not [
            word for word in ("cluster.", "layout.", "h800-", "time_s", "scale_up") if word in sentence
        ]


def test_a_shipped_question_is_answered_first_and_heads_its_report() -> None:
    result = sim.run("h800-vs-h100", {"workload.tokens_per_rank": 1024})
    runs = views_of(result)
    assert runs.question is not None
    first = words.finding(runs)[0]
    assert first.startswith("At EP 8 combine takes")
    page = report_html(result)
    assert page.index(runs.ask.replace("'", "&#39;")) < page.index("2.09 times as long")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("question.compare=cluster.hardwar", "did you mean cluster.hardware?"),
        ("question.over=workload.tokens_per_rank", "a key that the variants set differently"),
        ("question.metric=combine.times_s", "did you mean combine.time_s?"),
        ("question.asks=What?", "ask"),
        ("question={ask: What?, compare: cluster.hardware}", "no 'metric'"),
    ],
)
def test_a_question_that_its_variants_do_not_answer_is_refused(setting: str, told: str) -> None:
    with pytest.raises(InputError, match="question") as refused:
        scenario_settings.variants(scenario_settings.read("h800-vs-h100", [setting]))
    assert told in str(refused.value)


def test_a_comparison_of_one_run_is_refused() -> None:
    asked = "question={ask: Which?, compare: cluster.nodes, metric: dispatch.time_s}"
    with pytest.raises(InputError, match="a comparison of one run"):
        sim.run("deepep-ep8-h800", (asked,))


def test_a_question_alone_heads_the_report_of_one_run_with_what_was_set() -> None:
    quick = ("workload.tokens_per_rank=64", "expect={}", "cluster.hardware=h100")
    runs = views_of(sim.run("deepep-ep8-h800", quick))
    assert runs.question is None
    assert runs.ask.startswith("How fast are DeepEP's normal kernels on 8 H800, with")
    assert "cluster.hardware=h100" in runs.ask
    assert runs.ask.endswith("?")


def test_settings_that_are_compared_go_by_their_variants_and_say_what_moved() -> None:
    """Machines are what a time is on, settings what it is with; without a binding link the part that moved is the why."""
    precisions = ({}, {"gemm": "bf16"})
    entries = {
        name: {"scenario": {"workload": {"precision": precision}}, "metrics": {"tpot_s": time_s}}
        for name, precision, time_s in zip(("fp8", "wide"), precisions, (1e-3, 2e-3), strict=True)
    }
    asked = {"ask": "Which?", "compare": "workload.precision", "metric": "tpot_s"}
    question = question_of({"question": asked, "variants": entries})
    assert question is not None
    assert answer(question, lambda before, after: f"1 ms more in {before} than {after}") == [
        "Time per output token takes 1 ms with fp8 and 2 ms with wide, 2.00 times as long with wide as with fp8; "
        "with wide it spends 1 ms more in fp8 than wide."
    ]


def test_what_differs_most_is_said_first() -> None:
    values = {("h800", 8): (2e-3, "nic"), ("h100", 8): (2e-3, "nic"), ("h20", 8): (5e-3, "nic")}
    first, second = said(values)
    assert "2.50 times as long on H20" in first
    assert second.startswith("H800 and H100 have the same combine")
