"""Requests: drawn as asked, read from traces in any public format, and refused with the line where a row is wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from sim.errors import InputError
from sim.workload import request_traces
from sim.workload.request_traces import read
from sim.workload.requests import Lengths, Requests, poisson, reused_tokens, totals

HEADER = "arrival_s,prompt_tokens,output_tokens\n"
FIXED = Lengths("fixed", 100)


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "requests.csv"
    file.write_text(text)
    return file


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(write(tmp_path, text))
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_gaps_of_poisson_arrivals_have_mean_and_deviation_of_one_over_the_rate() -> None:
    found = poisson(50_000, 20.0, FIXED, FIXED, np.random.default_rng(0))
    gaps = np.diff(found.arrival_s)
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(0.05, rel=3 / np.sqrt(50_000))
    assert gaps.std() == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize(
    ("lengths", "deviation"),
    [
        (Lengths("fixed", 1000), 0.0),
        (Lengths("exponential", 1000), 1000.0),
        (Lengths("lognormal", 1000, 0.8), 1000 * np.sqrt(np.exp(0.64) - 1)),
    ],
)
def test_lengths_have_the_mean_and_deviation_of_their_distribution(
    lengths: Lengths, deviation: float
) -> None:
    drawn = lengths.draw(100_000, np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(1000, rel=0.02)
    assert drawn.std() == pytest.approx(deviation, rel=0.05)
    assert drawn.min() >= 1


def test_no_length_is_above_the_most() -> None:
    assert (
        Lengths("lognormal", 1000, 2.0, most_tokens=1500).draw(1000, np.random.default_rng(2)).max() == 1500
    )


def test_the_same_seed_draws_the_same_requests() -> None:
    first, second = (poisson(100, 1.0, FIXED, FIXED, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.arrival_s, second.arrival_s)


def test_columns_in_any_order_blank_lines_and_equal_arrivals_are_fine(tmp_path: Path) -> None:
    found = read(write(tmp_path, "output_tokens, arrival_s,prompt_tokens\n\n7,0.5,10\n1, 0.5 ,20\n"))
    assert found.num_requests == 2
    assert found.arrival_s.tolist() == [0.5, 0.5]
    assert found.prompt_tokens.tolist() == [10, 20]
    assert found.output_tokens.tolist() == [7, 1]


def test_a_token_in_and_one_out_are_a_request(tmp_path: Path) -> None:
    found = read(write(tmp_path, HEADER + "0,1,1\n"))
    assert (found.prompt_tokens.tolist(), found.output_tokens.tolist()) == ([1], [1])


def test_missing_and_unknown_columns_are_told_together(tmp_path: Path) -> None:
    told = problems(tmp_path, "arrival_s,prompt,output_tokens\n0,1,1\n")
    assert len(told) == 2
    assert told[0].startswith(
        "requests.csv:1:1: prompt_tokens: got no such column; wanted the columns arrival_s"
    )
    assert "the unknown column 'prompt'" in told[1]
    assert told[1].endswith("did you mean prompt_tokens?")


def test_all_problems_of_rows_are_told_with_line_and_column(tmp_path: Path) -> None:
    told = problems(
        tmp_path, HEADER + "1,10,10\n-1,10,10\n0.5,10,10\nx,0,1.5\n2,10\n3,,5\nnan,1,1\ninf,1,1\n"
    )
    for start in (
        "requests.csv:3:1: arrival_s: got -1; wanted seconds of 0 or more",
        "requests.csv:4:1: arrival_s: got 0.5; wanted an arrival at or after the 1 s of line 2: rows in order",
        "requests.csv:5:1: arrival_s: got x; wanted seconds",
        "requests.csv:5:2: prompt_tokens: got 0; wanted a whole number from 1",
        "requests.csv:5:3: output_tokens: got 1.5; wanted a whole number from 1",
        "requests.csv:6:1: got 2 cells; wanted 3, as in the header",
        "requests.csv:7:2: prompt_tokens: got nothing; wanted a whole number",
        "requests.csv:8:1: arrival_s: got nan",
        "requests.csv:9:1: arrival_s: got inf",
    ):
        assert any(line.startswith(start) for line in told), (start, told)


@pytest.mark.parametrize(
    "text", ["", "\n\n", HEADER, "arrival_s,arrival_s,prompt_tokens,output_tokens\n1,1,1,1\n", '"a\n']
)
def test_a_file_without_requests_says_so(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text)


def test_a_file_that_is_not_there_or_not_text_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted a readable CSV of requests"):
        read(tmp_path / "nowhere.csv")
    file = tmp_path / "bytes.csv"
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not UTF-8"):
        read(file)


def test_a_thousand_problems_are_cut_short(tmp_path: Path) -> None:
    told = problems(tmp_path, HEADER + "-1,1,1\n" * 1000)
    assert len(told) == 21
    assert "980 more problems" in told[-1]


# --- public formats -------------------------------------------------------------------------------------------------

MOONCAKE = """{"timestamp": 250, "input_length": 1030, "output_length": 7, "hash_ids": [10, 11, 12]}

{"timestamp": 1750.5, "input_length": 1536, "output_length": 9, "hash_ids": [10, 11, 13]}
{"timestamp": 1750.5, "input_length": 600, "output_length": 1, "hash_ids": [14, 11]}
"""
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 23:59:59.7500000,1030,7
2023-11-17 00:00:01.2505000,1536,9
2023-11-17 00:00:01.2505000,600,1
"""
BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
0.25,b,1.5,GPT-4,1030,7,1037,Conversation log
1,c,2.5,GPT-4,555,0,555,Conversation log
1.7505,a,2.5,ChatGPT,1536,9,1545,Conversation log
1.7505,b,2.5,ChatGPT,600,1,601,Conversation log
"""
VIDUR = """,arrived_at,num_prefill_tokens,num_decode_tokens,pd_ratio
0,0.25,1030,7,147.1
1,1.7505,1536,9,170.7
2,1.7505,600,1,600.0
"""


@pytest.mark.parametrize(
    ("text", "source", "first_s"),
    [
        (MOONCAKE, "mooncake", 0.25),
        (AZURE, "azure", 0.0),
        (BURSTGPT, "burstgpt", 0.25),
        (VIDUR, "vidur", 0.25),
    ],
    ids=["mooncake", "azure", "burstgpt", "vidur"],
)
def test_a_public_trace_is_known_by_its_columns(
    text: str, source: str, first_s: float, tmp_path: Path
) -> None:
    found = read(write(tmp_path, text))
    assert found.source == source
    assert found.arrival_s.tolist() == pytest.approx([first_s, first_s + 1.5005, first_s + 1.5005])
    assert totals(found)["prompt_tokens"] == 1030 + 1536 + 600
    assert found.output_tokens.tolist() == [7, 9, 1]
    assert found.num_dropped == (1 if source == "burstgpt" else 0)
    assert (found.blocks is None) == (source != "mooncake")


@pytest.mark.parametrize("batch", [1, 7, 4096])
def test_rows_read_together_are_those_read_one_by_one(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the standard library's reader: what had failed is dropped, whatever rows are read with it."""
    monkeypatch.setattr(request_traces, "_BATCH", batch)
    rng = np.random.default_rng(0)
    times, tokens = np.cumsum(rng.integers(0, 3, 500)) / 4, rng.integers(0, 9, (500, 2))
    rows = [
        f"{t},s{i % 5},m{i % 3},{p},{o},0,x" for i, (t, (p, o)) in enumerate(zip(times, tokens, strict=True))
    ]
    text = "\n".join(
        ["Timestamp,Session ID,Model,Request tokens,Response tokens,Total tokens,Log Type", *rows, ""]
    )
    found = read(write(tmp_path, text), class_column="Model")
    kept = [
        row
        for row in csv.DictReader(text.splitlines())
        if int(row["Request tokens"]) and int(row["Response tokens"])
    ]
    assert found.num_dropped == 500 - len(kept)
    assert found.arrival_s.tolist() == [float(row["Timestamp"]) for row in kept]
    assert found.prompt_tokens.tolist() == [int(row["Request tokens"]) for row in kept]
    assert found.output_tokens.tolist() == [int(row["Response tokens"]) for row in kept]
    for numbers, words in (
        (found.session_idx, [row["Session ID"] for row in kept]),
        (found.classes and found.classes.class_idx, [row["Model"] for row in kept]),
    ):
        assert numbers is not None
        assert numbers.tolist() == [[*dict.fromkeys(words)].index(word) for word in words]


@pytest.mark.parametrize("batch", [1, 7, 4096])
@pytest.mark.parametrize("cell", ["-1", "1.5", "", "1_0", "\u0663", "9999999999"])
def test_a_wrong_cell_among_many_is_told_alone_at_its_line(
    batch: int, cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_traces, "_BATCH", batch)
    [told] = problems(tmp_path, HEADER + "1,10,10\n" * 20 + f"1,10,{cell}\n" + "1,10,10\n" * 20)
    assert told.startswith(
        f"requests.csv:22:3: output_tokens: got {cell or 'nothing'}; wanted a whole number"
    )


def test_turns_of_a_conversation_share_a_number(tmp_path: Path) -> None:
    sessions = read(write(tmp_path, BURSTGPT)).session_idx
    assert sessions is not None
    assert sessions.tolist() == [0, 1, 0]  # b a b; c is dropped
    lines = '{"timestamp": 0, "input_length": 1, "output_length": 1, "session_id": "x"}\n'
    again = read(write(tmp_path, lines + lines.replace('"x"', "7") + lines)).session_idx
    assert again is not None
    assert again.tolist() == [0, 1, 0]
    assert read(write(tmp_path, AZURE)).session_idx is None


def test_only_first_blocks_that_earlier_prompts_had_are_found_again(tmp_path: Path) -> None:
    """10 and 11 of the second; none of the third, whose 11 comes after a block of its own."""
    found = read(write(tmp_path, MOONCAKE))
    assert reused_tokens(found).tolist() == [0, 1024, 0]
    assert totals(found)["reusable_fraction"] == pytest.approx(1024 / 3166)
    assert "reusable_fraction" not in totals(read(write(tmp_path, AZURE)))


def test_a_whole_prompt_that_is_found_again_is_not_longer_than_it_is(tmp_path: Path) -> None:
    line = '{"timestamp": 0, "input_length": 700, "output_length": 1, "hash_ids": [1, 2]}\n'
    assert reused_tokens(read(write(tmp_path, 2 * line))).tolist() == [0, 700]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MOONCAKE.replace("1750.5", "100"), "requests.csv:3:1: timestamp: got 100; wanted an arrival at or after"),
        (MOONCAKE.replace("250,", '"now",'), "timestamp: got \"now\"; wanted milliseconds"),
        (MOONCAKE.replace("1030", "1024"), "hash_ids: got 3 ids; wanted at most 2: one for 512 tokens"),
        (MOONCAKE.replace("[14, 11]", "[14, -1]"), "requests.csv:4:1: hash_ids: got [14, -1]; wanted a list of whole"),
        (MOONCAKE.replace("1030", "true"), "input_length: got true; wanted a whole number"),
        (MOONCAKE.replace('"output_length": 1,', ""), "requests.csv:4:1: got no output_length; wanted a JSON object"),
        (MOONCAKE + "{]", "requests.csv:5:1: got {]; wanted a JSON object"),
        (MOONCAKE + "[" * 100_000, "wanted a JSON object"),
        (AZURE.replace("2023-11-16", "16.11.2023"), "TIMESTAMP: got 16.11.2023"),
        (AZURE.replace("11-17", "11-15"), "got 2023-11-15 00:00:01.2505000; wanted a time like 2024-05-10 00:00:00.5, none before the first row's"),
        (AZURE.replace("GeneratedTokens", "Generated"), "GeneratedTokens: got no such column; wanted the columns TIMESTAMP"),
        (VIDUR.replace("1536", "1536.5"), "requests.csv:3:3: num_prefill_tokens: got 1536.5; wanted a whole number from 0"),
        (BURSTGPT.replace(",7,", ",0,").replace(",9,", ",0,").replace(",1,", ",0,"), "got 4 requests, none with prompt and answer"),
        ("when,in,out\n1,2,3\n", "wanted the columns arrival_s, prompt_tokens, output_tokens; or those of a trace of Mooncake"),
    ],
)  # fmt: skip
def test_a_wrong_row_of_a_public_trace_says_where(text: str, told: str, tmp_path: Path) -> None:
    said = problems(tmp_path, text)
    assert any(told in line for line in said), said


def test_no_trace_costs_more_than_its_entries(tmp_path: Path) -> None:
    many = '{"hash_ids": [' + "1," * 3_000_001
    assert any("more than 3,000,000 cells" in line for line in problems(tmp_path, many))
    assert any("more than 400,000 rows" in line for line in problems(tmp_path, "{" + "\n" * 400_001))


def test_conversations_of_the_shipped_trace_share_their_first_block() -> None:
    file = Path(__file__).parents[2] / "scenarios" / "serving-mooncake.jsonl"
    asked: Requests = read(file)
    assert asked.blocks is not None
    first = [asked.blocks.hashes(i)[0] for i in range(asked.num_requests)]
    assert set(first) == {0}  # one system prompt
    assert reused_tokens(asked)[0] == 0
    assert (reused_tokens(asked)[1:] >= 512).all()
