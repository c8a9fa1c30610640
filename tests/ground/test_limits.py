"""Limits: what is too much is counted before it is made, and told with its count, its limit and its keys."""

from __future__ import annotations

import gzip
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from sim import documents, limits
from sim.calibration import kineto
from sim.calibration.calibrate import calibrate
from sim.errors import InfeasibleError, InputError
from sim.scenario import resolve, settings
from sim.schedule import flow_list
from sim.show.files import folder
from sim.sweeps import file as sweep_file
from sim.workload import recordings

CPU_S, MEGABYTES = 2.0, 500
"""What any file may cost before it is accepted or refused, unless there is progress; a busy machine is given twice the time."""

KERNEL = '{"ph":"X","cat":"kernel","name":"k","ts":1,"dur":2,"pid":0,"tid":7,"args":{"device":0,"stream":7,"correlation":1}}'


def refused(function: object, *arguments: object) -> str:
    """Call a reader, in no more time than the bar; the first of what it says."""
    begun = time.process_time()
    with pytest.raises(InputError) as caught:
        function(*arguments)  # type: ignore[operator]
    assert time.process_time() - begun < 2 * CPU_S
    return str(caught.value.problems[0])


def costs(script: str) -> tuple[float, float, str]:
    """CPU seconds and megabytes of a fresh Python that runs a script, above those of its imports; and what it printed."""
    measured = textwrap.dedent(
        """
        import time
        from pathlib import Path
        from sim import documents
        from sim.schedule import flow_list
        from sim.calibration.calibrate import calibrate
        from sim.workload import recordings, request_traces
        from sim.errors import InputError
        def used():
            status = Path("/proc/self/status").read_text()  # what getrusage tells begins with the parent's
            return time.process_time(), int(status.partition("VmHWM:")[2].split()[0]) / 1024
        before = used()
        try:
            {script}
            print("read")
        except InputError as error:
            print(error.problems[0])
        after = used()
        print(after[0] - before[0], after[1])
        """
    ).replace("{script}", script)
    done = subprocess.run([sys.executable, "-c", measured], capture_output=True, text=True, check=True)
    said, numbers = done.stdout.splitlines()
    cpu_s, megabytes = map(float, numbers.split())
    return cpu_s, megabytes, said


# --- YAML ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "l: [" + "1," * 2_000_000 + "1]\n",
        "l:\n" + "- 1\n" * 7_000_000,
        "".join(f"k{i}: 1\n" for i in range(300_000)),
        "l: [" + "{}," * 2_000_000 + "1]\n",
        "a: &a [1]\nl: [" + "*a," * 2_000_000 + "1]\n",
    ],
    ids=["list of 4 MB", "list of 28 MB", "keys", "mappings", "aliases"],
)
def test_a_yaml_file_is_counted_while_it_is_read(text: str) -> None:
    assert f"got more than {limits.YAML_VALUES} values" in refused(documents.loads, text, "f.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "k{i}: 1",
        pytest.param("k{i}: [1, 2, 3, 4]", marks=pytest.mark.slow),
        pytest.param("k{i}: {a: 1}", marks=pytest.mark.slow),
    ],
    ids=["keys", "lists", "mappings"],
)
def test_the_longest_yaml_file_that_is_read_costs_no_more_than_the_bar(line: str, tmp_path: Path) -> None:
    each = {"keys": 2, "lists": 6, "mappings": 4}[
        "keys" if line.endswith(" 1") else "lists" if "[" in line else "mappings"
    ]
    file = tmp_path / "f.yaml"
    file.write_text(
        "".join(line.replace("{i}", str(i)) + "\n" for i in range((limits.YAML_VALUES - 1) // each))
    )
    cpu_s, megabytes, said = costs(f"documents.load({str(file)!r})")
    assert said == "read"
    assert cpu_s < 2 * CPU_S
    assert megabytes < MEGABYTES


@pytest.mark.parametrize(
    ("character", "code"), [("\x07", "0007"), ("\x00", "0000"), ("\x1b", "001B"), ("\ufffe", "FFFE")]
)
def test_a_control_character_in_yaml_is_told_with_its_line_and_column(character: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        documents.loads(f"name: x\ntitle: ab{character}c\n", "f.yaml")
    assert str(caught.value) == f"f.yaml:2:10: got the control character U+{code}; wanted text"


# --- CSV and arrays ------------------------------------------------------------------------------------------------


FLOWS = "flow_id,src,dst,bytes,start_us\n"


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("1,0,1,5,0\n" * 900_000, f"more than {limits.CSV_ROWS:,} rows"),
        ("\n" * 20_000_000, f"more than {limits.CSV_ROWS:,} rows"),
        ("," * 40_000_000, f"more than {limits.CSV_CELLS:,} cells"),
        ("1" * 60_000_000, f"wanted a readable CSV of flows, of at most {limits.CSV_BYTES}"),
    ],
    ids=["rows", "empty rows", "cells", "bytes"],
)
def test_a_csv_is_counted_while_it_is_read(content: str, count: str, tmp_path: Path) -> None:
    file = tmp_path / "flows.csv"
    file.write_text(FLOWS + content)
    assert count in refused(flow_list.read, file, 8)


AZURE = "2024-05-10 00:00:00.5000000,1,1\n"
MOONCAKE = '{"timestamp": 1, "input_length": 900, "output_length": 1, "hash_ids": [1, 2]}\n'


@pytest.mark.parametrize(
    ("reader", "header", "row"),
    [
        pytest.param(
            "lambda file: flow_list.read(file, 8)", FLOWS, "{i},0,1,1000,0.5\n", marks=pytest.mark.slow
        ),
        pytest.param(
            "lambda file: flow_list.read(file, 8)", FLOWS, "x,0,1,1000,0.5\n", marks=pytest.mark.slow
        ),
        ("request_traces.read", "arrival_s,prompt_tokens,output_tokens\n", "1.5,100,100\n"),
        pytest.param(
            "request_traces.read", "TIMESTAMP,ContextTokens,GeneratedTokens\n", AZURE, marks=pytest.mark.slow
        ),
        pytest.param("request_traces.read", "", MOONCAKE, marks=pytest.mark.slow),
        pytest.param("recordings.load_trace", "", "1,2,3,4,5,6,7\n", marks=pytest.mark.slow),
        pytest.param("recordings.load_trace", "", "1,2,3,4,5,6,-7\n", marks=pytest.mark.slow),
    ],
    ids=["flows", "wrong flows", "requests", "azure", "mooncake", "trace", "wrong trace"],
)
def test_the_longest_csv_that_is_read_costs_no_more_than_the_bar(
    reader: str, header: str, row: str, tmp_path: Path
) -> None:
    file = tmp_path / "long.csv"
    file.write_text(header + "".join(row.replace("{i}", str(i)) for i in range(limits.CSV_ROWS - 1)))
    cpu_s, megabytes, said = costs(f"({reader})(Path({str(file)!r}))")
    assert "more than" not in said
    assert cpu_s < 2 * CPU_S
    assert megabytes < MEGABYTES


@pytest.mark.slow
def test_the_longest_trace_of_requests_costs_no_more_than_the_bar(tmp_path: Path) -> None:
    """More than a day of a million requests; a row more is refused."""
    file = tmp_path / "long.csv"
    for num, said in (
        (limits.REQUEST_ROWS - 1, "read"),
        (limits.REQUEST_ROWS, f"more than {limits.REQUEST_ROWS:,} rows"),
    ):
        file.write_text("arrival_s,prompt_tokens,output_tokens\n" + "1.5,100,100\n" * num)
        cpu_s, megabytes, printed = costs(f"request_traces.read(Path({str(file)!r}))")
        assert said in printed
        assert cpu_s < 2 * CPU_S
        assert megabytes < MEGABYTES


def test_an_array_is_counted_by_its_header(tmp_path: Path) -> None:
    file = tmp_path / "ids.npy"
    np.save(file, np.zeros((limits.ARRAY_NUMBERS // 8 + 1, 8), dtype=np.int8))
    assert f"numbers, more than {limits.ARRAY_NUMBERS:,}" in refused(recordings.load_trace, file)


# --- profiler traces -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trace_of_tiny_events_is_counted_while_it_is_unpacked(tmp_path: Path) -> None:
    """2 MB of gzip that unpack to hundreds of MB of events: 5 GB of objects, were they all made."""
    file = tmp_path / "trace.json.gz"
    with gzip.open(file, "wb", compresslevel=9) as out:
        out.write(b'{"traceEvents":[')
        for _ in range(500):
            out.write(b"{},[]," * 100_000)
        out.write(KERNEL.encode() + b"]}")
    assert file.stat().st_size < 2.2e6
    cpu_s, megabytes, said = costs(f"calibrate({str(file)!r})")
    assert f"got more than {limits.TRACE_EVENTS:,} events; wanted a shorter trace" in said
    assert cpu_s < 10  # with a word of progress for every 250,000 events
    assert megabytes < MEGABYTES


def test_a_long_trace_says_how_far_it_is_and_keeps_only_gpu_work(tmp_path: Path) -> None:
    file, said = tmp_path / "trace.json", list[str]()
    passed = (
        '{"ph":"X","cat":"cpu_op","name":"aten::mm","ts":1,"dur":2,"args":{"Sequence number":3}},\n' * 260_000
    )
    file.write_text('{"traceEvents":[' + passed + KERNEL + "]}")
    trace = kineto.read(file, progress=said.append)
    assert len(trace.kernels) == 1
    assert said == ["trace.json: 250,000 events read", "trace.json: 1 kernels"]


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ('{"x": [' + "{}," * 3_000_000 + "{}]}", "an entry of more than 4194304 characters"),
        ("{" + ",".join(f'"{i}":1' for i in range(5000)) + "}", "an entry of more than 4194304 characters, or very many"),
        ('{"traceEvents": [' + "[" * 200_000, "nested too deep"),
        ('{"traceEvents": [{"a": "' + "x" * 6_000_000, "an entry of more than 4194304 characters"),
        ('{"traceEvents": []} {"traceEvents": []}', "1:21: got text that is not JSON"),
        ('{"traceEvents":\n [{}, {1}, {}, {}, {}]}' + " " * 50, "2:8: got text that is not JSON"),
    ],
    ids=["head", "heads", "deep", "string", "two", "wrong"],
)  # fmt: skip
def test_what_is_no_list_of_events_is_refused(text: str, got: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text(text)
    assert got in refused(calibrate, file)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_pieces_of_any_size_make_the_same_trace(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trace.json"
    text = '{"n": -12.5e3, "deviceProperties": [{"id": 0, "name": "é\\u00e9"}],\n"traceEvents": [ ' + KERNEL
    file.write_text(
        text + ",\n 17, null, " + KERNEL.replace('"k"', '"ü"') + ' ], "traceName": "x"}', encoding="utf-8-sig"
    )
    whole = kineto.read(file)
    monkeypatch.setattr(kineto, "_PIECE_BYTES", size)
    assert kineto.read(file) == whole
    assert [one.name for one in whole.kernels] == ["k", "ü"]
    assert (whole.origin.gpu, whole.origin.name) == ("éé", "x")


def test_kernels_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trace.json"
    file.write_text('{"traceEvents":[' + ",".join([KERNEL] * 20) + "]}")
    monkeypatch.setattr(limits, "TRACE_KEPT", 19)
    assert "got more than 19 kernels and launches" in refused(calibrate, file)


# --- what files lead to ----------------------------------------------------------------------------------------------


HEAD = "name: x\ncluster: {hardware: h800, nodes: 1%s}\nmodel: deepseek-v3\n"
PLAIN = "workload: {kind: all_to_all, bytes_per_rank: 1 MB, kernel: {kind: nccl}%s}\n"
STEP = "workload: {kind: training, microbatches: 8, kernel: {kind: two_hop}, stage_layers: [%s]}\n"


@pytest.mark.parametrize(
    ("text", "got"),
    [
        pytest.param(HEAD % "" + STEP % ",".join(["x"] * 190_000), "workload.stage_layers.0: got 'x'; wanted a whole number", marks=pytest.mark.slow),
        (HEAD % "" + PLAIN % "".join(f", k{i}: 1" for i in range(95_000)), "workload.k0: got the unknown key 'k0'"),
        pytest.param(HEAD % f", override: {{{','.join(f'k{i}: 1' for i in range(95_000))}}}" + PLAIN % "", "k0: got the unknown key 'k0'", marks=pytest.mark.slow),
    ],
    ids=["wrong values", "unknown keys", "unknown parameters"],
)  # fmt: skip
def test_a_scenario_of_very_many_problems_is_refused_as_fast(text: str, got: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    script = f"from sim.scenario import resolve, settings; resolve.resolve(settings.read({str(file)!r}))"
    cpu_s, megabytes, said = costs(script)
    assert got in said
    assert cpu_s < 2 * CPU_S
    assert megabytes < MEGABYTES


def test_problems_that_are_not_put_into_words_are_counted() -> None:
    document = documents.loads(HEAD % "" + STEP % ",".join(["x"] * 5000), "x.yaml")
    with pytest.raises(InputError) as caught:
        resolve.resolve(document)
    assert len(caught.value.problems) == limits.PROBLEMS + 1
    assert str(caught.value.problems[-1]) == "x.yaml: got 4,000 more problems; wanted none"


def test_variants_are_counted() -> None:
    names = ", ".join(f"v{i}: {{seed: {i}}}" for i in range(1000))
    document = documents.loads(HEAD % "" + PLAIN % "" + f"variants: {{{names}}}\n", "x.yaml")
    with pytest.raises(InfeasibleError, match=r"variants = 1,000 variants; the limit is 256"):
        settings.variants(document)


def test_values_of_an_axis_are_counted() -> None:
    text = f"name: x\nbase: h800-450\naxes: {{seed: [{', '.join(map(str, range(20_000)))}]}}\nobjectives: {{a: minimise}}\n"
    with pytest.raises(InputError, match=r"axes\.seed: got 20000 values; wanted at most 10000"):
        sweep_file.sweep_of(documents.loads(text.replace("h800-450", "deepep-ep8-h800"), "x.yaml"))


@pytest.mark.parametrize("entry", ["{}", "[]", "1.5", '{"a": 1}'])
def test_a_document_to_be_drawn_is_counted_before_it_is_read(entry: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text('{"schema": "moesim.result/1", "x": [' + f"{entry}," * 8_000_000 + "1]}")
    assert f"got JSON of more than {limits.JSON_ENTRIES:,} entries" in refused(folder.read, file)
