"""Requests: drawn as asked, read from a CSV, and refused with the line where a row is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.errors import InputError
from sim.workload.requests import Lengths, poisson, read

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
