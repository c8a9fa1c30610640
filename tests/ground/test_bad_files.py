"""Files that are named and are not there, are something else, or hold nonsense: each told where it is named or where it is wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
from plotly import graph_objects

from command import Moesim
from sim import cli, documents
from sim.errors import InputError, Mark, Problem
from sim.runs.run import run_document
from sim.scenario.resolve import resolve
from sim.show.pages import page
from sim.workload.recorded_loads import load_loads
from sim.workload.recordings import load_trace

FLOWS = """\
name: mine
cluster: {fabric: {kind: leaf_spine, hosts: 8, hosts_per_leaf: 4, spines: 4, link: 400 Gb/s}}
workload: {kind: flows, file: flows.csv}
"""
GATE = """\
name: mine
cluster: {hardware: h800, nodes: 1}
model: mixtral-8x7b
workload: {kind: all_to_all, tokens_per_rank: 8, gate: {kind: loads, file: loads.csv}, kernel: {kind: two_hop}}
"""
SERVING = """\
name: mine
cluster: {hardware: h800, nodes: 1}
model: mixtral-8x7b
workload:
  kind: serving
  arrivals: {kind: trace, file: users.csv}
  prefill: {ep: 8, plan: {kernel: {kind: two_hop}}}
  decode: {ep: 8, instances: 0, plan: {kernel: {kind: low_latency}}}
"""
LIST = "flow_id,src,dst,bytes,start_us\n1,0,5,1000,0\n"


def told(text: str, folder: Path) -> list[str]:
    """The problems of a scenario that lies in a folder."""
    document = documents.loads(text, "mine.yaml")
    document.folder = folder
    with pytest.raises(InputError) as caught:
        resolve(document)
    return [str(problem) for problem in caught.value.problems]


# --- where a file is named ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "there", "near"),
    [
        (FLOWS, "3:31: workload.file", "flws.csv", "flws.csv"),
        (GATE, "4:76: workload.gate.file", "Loads.csv", "Loads.csv"),
        (SERVING, "6:33: workload.arrivals.file", "users2.csv", "users2.csv"),
        (FLOWS, "3:31: workload.file", "other.csv", None),
    ],
)
def test_a_file_that_is_missing_is_told_where_it_is_named_with_the_nearest_beside_it(
    tmp_path: Path, text: str, place: str, there: str, near: str | None
) -> None:
    (tmp_path / there).touch()
    (line,) = told(text, tmp_path)
    assert line.startswith(f"mine.yaml:{place}: got '{tmp_path}/")
    assert "no such file" in line
    assert line.endswith(f"; did you mean {near}?") == (near is not None)


@pytest.mark.parametrize("text", [FLOWS, GATE, SERVING])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, text: str) -> None:
    """A pipe would be waited for without end."""
    name = next(word.strip("{},") for word in text.split() if ".csv" in word)
    (tmp_path / name).mkdir()
    assert "a folder" in told(text, tmp_path)[0]
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)
    assert "no regular file" in told(text, tmp_path)[0]
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(name)
    assert "symbolic links" in told(text, tmp_path)[0]


def test_check_reads_the_flows_and_nothing_runs_before_every_file_is_read(
    moesim: Moesim, tmp_path: Path
) -> None:
    (tmp_path / "good.yaml").write_text(FLOWS.replace("mine", "good").replace("flows.csv", "good.csv"))
    (tmp_path / "good.csv").write_text(LIST)
    (tmp_path / "bad.yaml").write_text(FLOWS)
    (tmp_path / "flows.csv").write_text(LIST.replace("1000", "many"))
    assert moesim("check", "good.yaml").code == 0
    for command in (("check", "bad.yaml"), ("run", "good.yaml", "bad.yaml")):
        said = moesim(*command)
        assert said.code == 2
        assert "flows.csv:2:4: bytes: got 'many'; wanted a number of 0 or more" in said.err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("spec", "got", "near"),
    [
        ("mine.yml", "'mine.yml'", "mine.yaml"),
        ("./mind.yaml", "'./mind.yaml'", "mine.yaml"),
        ("mine", "'mine'", "mine.yaml"),
        (".", "'.', a folder", None),
        ("folder.yaml", "'folder.yaml', a folder", None),
        ("other.yaml", "'other.yaml'", None),
        ("y" * 300 + ".yaml", "'" + "y" * 100, None),
        ("a\nb\x1b[31m", r"'a\nb\x1b[31m'", None),
    ],
)
def test_a_path_that_is_none_names_the_nearest_file_there(
    moesim: Moesim, tmp_path: Path, spec: str, got: str, near: str | None
) -> None:
    (tmp_path / "mine.yaml").write_text(FLOWS)
    (tmp_path / "folder.yaml").mkdir()
    said = moesim("run", spec)
    assert said.code == 2
    assert said.err.startswith(f"got {got}")
    assert said.err.count("\n") == 1
    assert said.err.strip().isprintable()
    assert said.err.rstrip().endswith(f"did you mean {near}?") == (near is not None)


# --- what stands in them -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", [lambda text: text.replace("\n", "\r\n"), lambda text: text.replace("\n", "\r"),
                                    lambda text: "\ufeff" + text])  # fmt: skip
def test_line_ends_and_byte_order_marks_change_nothing(tmp_path: Path, encode: Any) -> None:
    lists = {"flows.csv": LIST, "loads.csv": "expert,load\n" + "".join(f"{i},{i}\n" for i in range(8)),
             "users.csv": "arrival_s,prompt_tokens,output_tokens\n0,10,2\n"}  # fmt: skip
    found = []
    for change in (str, encode):
        for name, text in lists.items():
            (tmp_path / name).write_bytes(change(text).encode())
        for text in (FLOWS, GATE, SERVING):
            document = documents.loads(change(text), "mine.yaml")
            document.folder = tmp_path
            found.append(repr(resolve(document).workload))
    assert found[:3] == found[3:]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("1,2,3\n4,x,6\n", "2:2", "got 'x'; wanted a whole number of 0 or more"),
        ("1,2\n3,4.5\n", "2:2", "got '4.5'; wanted a whole number"),
        ("1,2\n3,inf\n", "2:2", "got 'inf'"),
        ("1,2\n3,-4\n", "2:2", "got '-4'"),
        ("1,2\n3,99999999999\n", "2:2", "got '99999999999'"),
        ("1,2\n\n3\n", "3:1", "got 1 cells; wanted 2, as in the first row"),
        ("token,a,b\n0,1,2\n1,3,\n", "3:3: b", "got ''"),
        ("1,2,x\n", "1:3", "got 'x'"),
        ('1,2\n"3,4\n', "2:1", "unexpected end of data"),
        ("1,2\n3,4\udce9\n", "2:4", "a byte that is not UTF-8 at 7"),
        ("", "", "trace: got no number; wanted rows of expert ids"),
        ("token\n1\n", "", "trace: got no number"),
    ],
)
def test_a_wrong_cell_of_a_trace_is_told_at_its_line_and_column(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    file = tmp_path / "trace.csv"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        load_trace(file)
    assert str(caught.value).startswith(f"{file}:{place}")
    assert words in str(caught.value)


def test_all_wrong_cells_are_told_together_and_twenty_of_many(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("x,1\n2,y\nz,3\n")
    with pytest.raises(InputError) as caught:
        load_trace(file)
    assert len(caught.value.problems) == 3
    file.write_text("x,1\n" * 1000)
    with pytest.raises(InputError) as caught:
        load_trace(file)
    assert "980 more problems" in str(caught.value)


@pytest.mark.parametrize("rows", ["0,1\n0,2\n", "0,1\n2,2\n", "1,1\n2,2\n", "0.5,1\n1,2\n"])
def test_loads_say_each_expert_once(tmp_path: Path, rows: str) -> None:
    file = tmp_path / "loads.csv"
    file.write_text("expert,load\n" + rows)
    with pytest.raises(InputError, match="wanted each of the experts 0 to 1 once"):
        load_loads(file)


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def promising(shape: str) -> bytes:
    """An npy with a header and no numbers."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00v\x00" + header.encode().ljust(117) + b"\n"


def npz(compression: int = zipfile.ZIP_STORED, **inside: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in inside.items():
            archive.writestr(name, content)
    return stream.getvalue()


COUNTS = np.arange(1, 9)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"1,2,3", pickle.dumps([1, 2]), npy(COUNTS)[:70], npy(COUNTS)[:-5], npy(COUNTS * 1j), npy(COUNTS > 3),
        npy(np.array(["a", "b"])), npy(np.array([{}, 1], dtype=object), allow_pickle=True), npy(np.zeros(8, dtype="i8,f8")),
        npy(np.array(["2020-01-01"], dtype="M8[D]")), npy(np.full(8, np.nan)), npy(-COUNTS), npy(COUNTS * 1e300),
        npy(COUNTS.reshape(2, 2, 2, 1)), npy(np.array([])), promising("(1000000000000,)"), promising("(-1,)"), promising("(" * 60),
        promising("(10**9,)"),
    ],
    ids=lambda content: f"{content[:80]!r}"[-50:],
)  # fmt: skip
def test_a_file_that_is_no_array_of_loads_is_refused_and_nothing_it_promises_is_made(
    tmp_path: Path, content: bytes
) -> None:
    for name, raw in (("d.npy", content), ("d.npz", content), ("d.npz", npz(a=content))):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(InputError) as caught:
            load_loads(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert len(str(caught.value)) < 600


def test_an_npz_of_several_or_of_more_than_it_should_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = npy(COUNTS.reshape(4, 2))
    (tmp_path / "d.npz").write_bytes(npz(a=good, b=good))
    with pytest.raises(InputError, match="2 arrays in one file"):
        load_trace(tmp_path / "d.npz")
    (tmp_path / "d.npz").write_bytes(npz(zipfile.ZIP_DEFLATED, a=bytes(2**20)))
    monkeypatch.setattr("sim.limits.FILE_BYTES", 2**18)
    with pytest.raises(InputError, match="1048576 bytes when unpacked, more than 262144"):
        load_trace(tmp_path / "d.npz")


def test_links_that_lead_elsewhere_are_told_at_their_cell(tmp_path: Path) -> None:
    static = FLOWS.replace("link: 400 Gb/s", "link: 400 Gb/s, routing: static")
    rows = [
        "1,0,5,9,0,LS0->US1 US1->LS1",
        "2,0,5,9,0,LS0->US4 US4->LS1",
        "3,0,5,9,0,",
        "4,0,1,9,0,LS0->US0 US0->LS0",
    ]
    (tmp_path / "flows.csv").write_text("flow_id,src,dst,bytes,start_us,links\n" + "\n".join(rows))
    lines = [line.removeprefix(f"{tmp_path}/") for line in told(static, tmp_path)]
    way = "LS0->US<s> US<s>->LS_1, s from 0 to 3"
    assert lines == [
        f"flows.csv:3:6: links: got 'LS0->US4 US4->LS1'; wanted {way}",
        f"flows.csv:4:6: links: got ''; wanted {way}",
        "flows.csv:5:6: links: got 'LS0->US0 US0->LS0'; wanted no links: hosts 0 and 1 are on leaf 0",
    ]


def test_a_column_that_stands_twice_is_told_at_the_second(tmp_path: Path) -> None:
    (tmp_path / "flows.csv").write_text("flow_id,src,dst,bytes,start_us,src\n1,0,5,9,0,3\n")
    (line,) = told(FLOWS, tmp_path)
    assert line.endswith("flows.csv:1:6: src: got the column 'src' 2 times; wanted it once")


# --- what a message shows ----------------------------------------------------------------------------------------------


def test_a_message_is_one_line_of_text_whatever_was_got() -> None:
    problem = Problem(Mark("a\nb.yaml", 3, 4), "k\te", "'\x1b[2J\u202e'", "x\x00y", "\x9bz")
    assert str(problem) == r"a\nb.yaml:3:4: k\te: got '\x1b[2J\u202e'; wanted x\x00y; did you mean \x9bz?"
    long = str(Problem(None, "key", repr("y" * 10**6), "less"))
    assert len(long) < 250
    assert long.startswith("key: got 'yyy")
    assert long.endswith("yyy'; wanted less")


def test_a_hundred_problems_are_told_and_the_others_counted() -> None:
    lines = str(InputError(Problem(None, "", str(i), "none") for i in range(3000))).splitlines()
    assert len(lines) == 101
    assert lines[-1] == "... and 2,900 more problems"


def test_numbers_beyond_any_machine_are_refused_where_they_stand() -> None:
    """Products of a few of them would leave the range of numbers: no infinity, and no NaN, gets into a result."""
    for old, new in (
        ("400 Gb/s", "1e300 B/s"),
        ("400 Gb/s", "1e-300 B/s"),
        ("400 Gb/s", "1 B/s, link_latency: 1e300 s"),
    ):
        with pytest.raises(InputError, match=r"mine\.yaml:2:.*: cluster\.fabric\.link.*: got '1e"):
            run_document(documents.loads(FLOWS.replace(old, new), "mine.yaml"))


# --- where files go ------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_is_told_before_the_work(
    moesim: Moesim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the work was done")

    for work in ("runs.run.run_document", "validation.validate.validate", "calibration.calibrate.calibrate"):
        monkeypatch.setattr(f"sim.{work}", never)
    monkeypatch.setattr("sim.ladders.run.run_file", never)
    monkeypatch.chdir(tmp_path)
    Path("here").write_text("a file")
    Path("loop").symlink_to("loop")
    for command in (
        ("run", "deepep-ep8-h800"),
        ("ladder", "v3-layout"),
        ("validate",),
        ("calibrate", "here"),
    ):
        for out in ("here/below", "loop/below"):
            said = moesim(*command, "--out", out)
            assert said.code == 2
            assert "--out: got" in said.err
            assert "which is no folder; wanted a folder that can be written" in said.err


def test_check_says_which_key_would_tell_what_a_file_is(
    moesim: Moesim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("name: x\nlaetncy: {}\n")
    said = moesim("check", "mine.yaml")
    assert said.err.startswith("mine.yaml:2:1: laetncy: got the key 'laetncy'; wanted a scenario (")
    assert said.err.endswith("did you mean latency?\n")


def test_check_goes_on_after_what_no_machine_can_do(
    moesim: Moesim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("misfit.yaml").write_text(
        "name: x\ncluster: {hardware: h800, nodes: 2}\nmodel: mixtral-8x7b\nlayout: {pp: 32, ep: 8}\n"
        "workload: {kind: training, microbatches: 8, kernel: {kind: two_hop}}\n"
    )
    Path("wrong.yaml").write_text("name: x\ncluster: {hardware: h800, nodes: 0}\n")
    alone = moesim("check", "misfit.yaml", "h800-vs-h100")
    assert (alone.code, "h800-vs-h100: a valid scenario" in alone.err) == (3, True)
    assert "moesim: misfit.yaml: " in alone.err
    both = moesim("check", "misfit.yaml", "wrong.yaml")
    assert (both.code, "wrong.yaml:1:1: got nothing; wanted the key 'workload'" in both.err) == (2, True)


def test_new_reads_its_template_like_any_file(
    moesim: Moesim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_bytes(b"name: a\n# caf\xe9\n")
    assert moesim("new", "mine", "--from", "own.yaml").err.startswith(
        "own.yaml:2:6: got a byte that is not UTF-8"
    )
    assert "at most 80" in moesim("new", "y" * 81).err
    assert not Path("mine.yaml").exists()


# --- documents of earlier runs -----------------------------------------------------------------------------------------------


def test_what_is_no_document_of_ours_is_told_where_it_breaks(
    moesim: Moesim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, words in {
        '{"schema": "moesim.result/1",\n "metrics": {"dispatch": }}': "old.json:2:26: got text that is not whole JSON",
        '{"schema": "moesim.result/1", "metrics": {"a": NaN}}': "old.json: got JSON with an impossible number: NaN",
        '{"a": ' + "9" * 5000 + "}": "old.json: got JSON with an impossible number: ",
        "[" * 100_000: "old.json: got JSON that is nested too deep",
        '{"schema": []}': "old.json: schema: got '[]'; wanted one of: moesim.result/1",
        '{"schema": "moesim.result/1", "variants": [1]}': "old.json: got a document that breaks what reads it",
        '{"schema": "moesim.result/1", "metrics": {"dispatch": 3}}': "old.json: got a document that breaks what reads it",
        '{"schema": "moesim.results/1", "results": 3}': "old.json: got a document that breaks what reads it",
        '{"schema": "moesim.result/1"}': "old.json: result: got keys schema; wanted a result document",
    }.items():  # fmt: skip
        Path("old.json").write_text(text)
        said = moesim("plot", "old.json", "--kind", "bars", "--out", "drawn")
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith(words), said.err
    assert "did you mean h800?" in moesim("plot", "h8000", "--kind", "roofline").err
    os.mkfifo("pipe.json")
    assert "something that is no regular file" in moesim("plot", "pipe.json", "--kind", "bars").err
    assert "something that is no regular file" in moesim("calibrate", "pipe.json").err
    assert not Path("drawn").exists()


def test_every_run_of_a_document_is_drawn_under_a_name_of_its_own(
    moesim: Moesim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of one scenario, two of one document, and a name that would lead out of the folder."""
    monkeypatch.chdir(tmp_path)
    bars = {"dispatch": {"time_s": 1.0, "completion_time_s": 1.0, "lower_bound_s": 0.5, "binding": "nic"}}
    one = {"schema": "moesim.result/1", "name": "mine", "metrics": bars}
    Path("a.json").write_text(json.dumps(one))
    Path("b.json").write_text(
        json.dumps({"schema": "moesim.results/1", "results": {"mine": one, "x": one | {"name": "../x/y"}}})
    )
    said = moesim("plot", "a.json", "b.json", "--kind", "bars", "--out", "drawn")
    assert said.out.split() == ["drawn/mine-bars.html", "drawn/mine-2-bars.html", "drawn/_._x_y-bars.html"]


# --- names that mean something to what shows them ----------------------------------------------------------------------------


def test_brackets_in_names_are_no_markup(
    moesim: Moesim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = moesim(
        "run", "deepep-ep8-h800", "--no-report", "--set", "model.name='[/bold]'", "--out", "out[/x]"
    )
    assert said.code == 0
    assert "[/bold]" in said.err
    assert "out[/x]/result.json" in said.err


def test_what_stands_in_a_page_is_json_whatever_names_it_holds() -> None:
    name = "</script><!-- <script>"
    text = page.figure_page("x", graph_objects.Figure(graph_objects.Bar(x=[name], y=[1])))
    data = text.partition('id="x-data">')[2].partition("</script>")[0]
    assert json.loads(data)["data"][0]["x"] == [name]


# --- where it is printed ---------------------------------------------------------------------------------------------------


def unread() -> TextIO:
    """A stream whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


def full() -> TextIO:
    """A stream on a disk without space."""
    return open("/dev/full", "w", encoding="utf-8")


@pytest.mark.parametrize(
    ("stdout", "stderr", "code"),
    [
        (unread, io.StringIO, 0),
        (lambda: None, io.StringIO, 0),
        (io.StringIO, unread, 0),
        (io.StringIO, full, 0),
        (unread, lambda: None, 0),
        (full, io.StringIO, 1),
    ],
)
def test_a_run_goes_on_when_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stdout: Any, stderr: Any, code: int
) -> None:
    """Its files are written; of a document that could not be printed it is told, and the code is 1."""
    if full in (stdout, stderr) and not os.path.exists("/dev/full"):
        pytest.skip("a disk that is full is a Linux device")
    (tmp_path / "flows.csv").write_text(LIST)
    (tmp_path / "mine.yaml").write_text(FLOWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "moesim",
            "run",
            "mine.yaml",
            "--no-report",
            "--out",
            "out",
            *(["--json"] if stdout != io.StringIO else []),
        ],
    )
    out, err = stdout(), stderr()
    for name, stream in (("stdout", out), ("stderr", err)):
        monkeypatch.setattr(sys, name, stream)
        monkeypatch.setattr(sys, f"__{name}__", stream)
    ended = 0
    try:
        cli.main()
    except SystemExit as stop:
        ended = int(stop.code or 0)
    finally:
        for stream in (sys.stdout, sys.stderr, out, err):
            if not isinstance(stream, io.StringIO | None):
                stream.close()
    assert ended == code
    assert (tmp_path / "out" / "result.json").is_file()
    if code:
        assert err.getvalue() == "moesim: no space left on device\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            MemoryError("Unable to allocate 8 GiB"),
            "moesim: not enough memory on this machine; Unable to allocate 8 GiB\n",
        ),
        (OSError(5, "Input/output error", "a\nb"), "moesim: a\\nb: input/output error\n"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("sim.runs.run.run_document", refuse)
    said = moesim("run", "deepep-ep8-h800")
    assert (said.code, said.out, said.err) == (1, "", words)
