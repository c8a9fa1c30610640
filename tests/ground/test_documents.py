"""YAML as plain trees with marks: what PyYAML would let through is refused or read plainly."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from sim import documents, limits, schemas
from sim.documents import Document, dotted, load, loads, parse_scalar, split
from sim.errors import InputError, Mark


def problems(text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        loads(text, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


# --- what a value reads as -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e9", 1e9), ("1.5e-3", 1.5e-3), ("-2", -2), (".5", 0.5), ("7.", 7.0), ("on", "on"), ("yes", "yes"), ("off", "off"),
        ("No", "No"), ("true", True), ("False", False), ("~", None), ("null", None), ("", None), ("12:30", "12:30"),
        ("0x10", "0x10"), ("1_000", "1_000"), ("010", 10), ("2024-01-01", "2024-01-01"), ("'1'", "1"), ('"true"', "true"),
        ("400 GB/s", "400 GB/s"), ("[1, 'a', {b: 2}]", [1, "a", {"b": 2}]), ("{}", {}), ("'~'", "~"),
        ("99999999999999999999999", 1e23),
    ],
)  # fmt: skip
def test_a_scalar_reads_as(text: str, value: object) -> None:
    found = loads(f"key: {text}\n", "f.yaml").tree["key"]
    assert found == value
    assert type(found) is type(value)
    assert parse_scalar(text, "--set") == value


def test_keys_stay_words() -> None:
    assert list(loads("on: 1\n5: 2\ntrue: 3\n~: 4\n", "f.yaml").tree) == ["on", "5", "true", "~"]


def test_anchors_and_merge_keys_are_plain() -> None:
    assert loads("a: &x {b: 1}\nc: *x\n", "f.yaml").tree == {"a": {"b": 1}, "c": {"b": 1}}
    assert loads("a: &x {b: 1}\nc: {<<: *x, d: 2}\n", "f.yaml").tree["c"] == {"<<": {"b": 1}, "d": 2}


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_duplicate_key_names_both_lines() -> None:
    text = "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2\n"
    assert problems(text) == [
        "f.yaml:5:3: b.c: got a duplicate key; wanted one; the first stands in line 3",
        "f.yaml:6:1: a: got a duplicate key; wanted one; the first stands in line 1",
    ]


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system [echo]", "!mine {a: 1}", "!!binary aGk=", "!!set {a, b}"]
)
def test_a_tag_is_refused_where_it_stands(text: str) -> None:
    (problem,) = problems(f"a: 1\nkey: {text}\n")
    assert problem.startswith("f.yaml:2:6: key: got the tag ")


def test_an_alias_bomb_is_refused_quickly() -> None:
    """Nine levels of nine aliases: 3.9e8 values, were it expanded."""
    levels = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    levels += [f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (problem,) = problems("\n".join(levels))
    assert f"more than {limits.YAML_VALUES} values" in problem


def test_an_alias_inside_itself_is_refused() -> None:
    assert any("alias inside itself" in problem for problem in problems("a: &x [1, *x]\n"))


@pytest.mark.parametrize(
    "text", ["[" * 5000, "a: " + "{b: " * 500, "- " * 3000, "? " * 2000, "a: " + "[" * 100 + "]" * 100]
)
def test_deep_nesting_is_refused(text: str) -> None:
    assert any("f.yaml" in problem for problem in problems(text))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "f.yaml:1:1"), ("   \n# nothing\n", "f.yaml:1:1"), ("- 1\n- 2\n", "f.yaml:1:1"), ("just words\n", "f.yaml:1:1"),
        ("a: 1\n\tb: 2\n", "f.yaml:2:1"), ("a: [1, 2\n", "f.yaml:2:1"), ("a: 'x\n", "f.yaml:"), ("a: 1\n---\nb: 2\n", "f.yaml:"),
        ("a: b: c\n", "f.yaml:1:5"), ("a: *nobody\n", "f.yaml:1:4"), ("%YAML 9\n", "f.yaml:"), ("{[1]: 2}\n", "f.yaml:1:2"),
        ("a: \x00\n", "f.yaml"), ("a: \x07\n", "f.yaml"), ("a: %x\n", "f.yaml:1:4"), ("a: @x\n", "f.yaml:1:4"),
    ],
)  # fmt: skip
def test_what_is_no_mapping_of_values_says_where(text: str, place: str) -> None:
    assert problems(text)[0].startswith(place)


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            load(path)
        return str(caught.value)

    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: caf\xe9\n")
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(limits.YAML_BYTES + 1)
    assert "got a byte that is not UTF-8 at 9; wanted UTF-8 text" in message(latin)
    assert "at most 33554432" in message(huge)
    assert "no such file" in message(tmp_path / "none.yaml")
    assert "a readable YAML file" in message(tmp_path)


@pytest.mark.parametrize("escape", [r"\0", r"\e[2J", r"\x7f", r"\x9b"])
def test_control_characters_are_refused_where_they_stand(escape: str) -> None:
    """No file can have a NUL in its name; an escape sequence would be obeyed by whoever prints it."""
    for text, place in ((f'name: x\ntitle: "a{escape}b"\n', "2:8: title"), (f'"a{escape}": 1\n', "1:1: a")):
        (line,) = problems(text)
        assert line.startswith(f"f.yaml:{place}")
        assert "got the control character U+" in line
        assert line.isprintable()


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: x\n")
    assert load(file).tree == {"name": "x"}


WORDS = st.text(st.characters(blacklist_categories=("Cc", "Cs")) | st.sampled_from("\t\n"), max_size=8)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, TREES, max_size=4))
def test_any_tree_that_yaml_can_write_reads(tree: dict[str, Any]) -> None:
    """With the same shape and words; numbers may come back as words and words as words only."""

    def same(ours: Any, theirs: Any) -> bool:
        if isinstance(theirs, dict):
            return isinstance(ours, dict) and all(same(ours[str(k)], v) for k, v in theirs.items())
        if isinstance(theirs, list):
            return isinstance(ours, list) and all(map(same, ours, theirs))
        return isinstance(theirs, str | float) or ours == theirs or abs(theirs) >= 10**19

    assert same(loads(yaml.safe_dump(tree), "f.yaml").tree, tree)


@given(st.text(max_size=60) | st.text(alphabet="{}[]:,-&*!|>'\"%@`#?<~ \n\tab01.", max_size=60))
def test_any_text_reads_or_says_why(text: str) -> None:
    try:
        document = loads(text, "f.yaml")
    except InputError as error:
        assert error.problems  # noqa: PT017
        assert all(problem.where is not None for problem in error.problems)  # noqa: PT017
    else:
        assert isinstance(document.tree, dict)


# --- marks, put, overlay -------------------------------------------------------------------------------------------

TEXT = "a: 1\nb:\n  c: [x, {d: 2}]\n  e: {f: 3}\n"


def test_every_key_and_value_has_its_mark() -> None:
    document = loads(TEXT, "f.yaml")
    assert document.mark(("b", "c", 1, "d")) == Mark("f.yaml", 3, 14)
    assert document.mark(("b", "c", 1, "d"), key=True) == Mark("f.yaml", 3, 11)
    assert document.mark(("b", "e", "nothing", "here")) == document.mark(("b", "e"))


def test_put_makes_mappings_on_the_way_and_marks_them() -> None:
    document, mark = loads(TEXT, "f.yaml"), Mark("--set")
    document.put(("b", "new", "deep"), 5, mark)
    document.put(("b", "c", 1, "d"), 6, mark)
    assert document.tree["b"] == {"c": ["x", {"d": 6}], "e": {"f": 3}, "new": {"deep": 5}}
    assert document.mark(("b", "new", "deep")) == document.mark(("b", "new")) == mark
    assert document.mark(("b", "e", "f")) != mark


def test_put_forgets_the_marks_of_what_it_replaces() -> None:
    document, mark = loads(TEXT, "f.yaml"), Mark("--set")
    document.put(("b",), {"c": 1}, mark)
    assert document.mark(("b", "c", 1)) == mark


@pytest.mark.parametrize("path", [("b", "c", 2), ("b", "c", "word"), ("b", "c", 5, "x")])
def test_put_outside_a_list_says_so(path: tuple[str | int, ...]) -> None:
    with pytest.raises(InputError, match="--set"):
        loads(TEXT, "f.yaml").put(path, 1, Mark("--set"))


def test_overlay_merges_mappings_and_replaces_the_rest() -> None:
    document = loads(TEXT, "f.yaml")
    document.overlay(loads("b:\n  e: {g: 4}\n  c: [y]\nh: {}\n", "g.yaml"))
    assert document.tree == {"a": 1, "b": {"c": ["y"], "e": {"f": 3, "g": 4}}, "h": {}}
    assert document.mark(("b", "e", "g")).file == "g.yaml"
    assert document.mark(("b", "e", "f")).file == "f.yaml"


def test_a_copy_is_independent() -> None:
    document = loads(TEXT, "f.yaml")
    document.copy().put(("b", "e", "f"), 9, Mark("x"))
    assert document.get(("b", "e", "f")) == 3


@given(st.lists(st.text("abc_", min_size=1, max_size=3) | st.integers(0, 99), min_size=1, max_size=4))
def test_dotted_and_split_are_inverse(path: list[str | int]) -> None:
    assert split(dotted(tuple(path))) == tuple(path)


@pytest.mark.parametrize("key", ["²", "a.²", "٣", "9" * 5000, "..", ""])
def test_odd_digits_are_words_or_numbers_but_no_crash(key: str) -> None:
    assert split(key)


# --- checking ------------------------------------------------------------------------------------------------------


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rate: schemas.Rate
    count: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    inner: Inner
    many: list[Inner] = []


def test_all_problems_of_a_file_are_told_together() -> None:
    document = loads(
        "inner:\n  rate: 400 gb/s\n  cuont: 3\nmany:\n  - rate: 5\n  - {rate: 1 B/s, count: x}\n", "f.yaml"
    )
    with pytest.raises(InputError) as caught:
        schemas.check(document, Outer)
    told = sorted(str(problem) for problem in caught.value.problems)
    assert len(told) == 5
    assert told[0] == "f.yaml:1:1: got nothing; wanted the key 'name'"
    assert told[1].startswith("f.yaml:2:9: inner.rate: got '400 gb/s'; wanted a rate with its unit")
    assert told[1].endswith("did you mean '400 Gb/s'?")
    assert (
        told[2]
        == "f.yaml:3:3: inner.cuont: got the unknown key 'cuont'; wanted one of: count, rate; did you mean count?"
    )
    assert told[3].startswith("f.yaml:5:11: many.0.rate: got 5; wanted a rate with its unit")
    assert told[4].startswith("f.yaml:6:26: many.1.count: got 'x'")


def test_a_branch_keeps_its_marks() -> None:
    branch = loads(TEXT, "f.yaml").branch(("b", "e"))
    assert branch.tree == {"f": 3}
    assert branch.mark(("f",), key=True) == Mark("f.yaml", 4, 7)
    assert Document({}, "x").branch(("no",)).tree == {}


# --- files read again --------------------------------------------------------------------------------------------------


def test_a_file_that_has_changed_is_read_again_and_one_that_has_not_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read = tmp_path / "a.yaml", []
    compose = documents.loads

    def noted(text: str, name: str) -> Document:
        read.append(text)
        return compose(text, name)

    monkeypatch.setattr(documents, "loads", noted)
    file.write_text("a: 1", encoding="utf-8")
    assert [load(file).tree, load(file).tree] == [{"a": 1}] * 2
    assert len(read) == 2  # it has only just been written: another change in this instant would not show
    file.write_text("a: 2", encoding="utf-8")
    now = round(time.time())
    for age_s, count in ((100, 3), (100, 3), (50, 4)):
        os.utime(file, (now, now - age_s))
        assert load(file).tree == {"a": 2}
        assert len(read) == count


def test_who_changes_a_document_changes_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: {b: [1, 2]}", encoding="utf-8")
    os.utime(file, (0, 0))
    first = load(file)
    first.put(("a", "b", 0), 7, Mark("elsewhere"))
    assert load(file).tree == {"a": {"b": [1, 2]}}
    assert load(file).mark(("a", "b", 0)) == Mark(str(file), 1, 9)


def test_a_problem_is_told_every_time_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 1\na: 2", encoding="utf-8")
    os.utime(file, (0, 0))
    for _ in range(2):
        with pytest.raises(InputError, match=r"a.yaml:2:1: a: got a duplicate key"):
            load(file)
