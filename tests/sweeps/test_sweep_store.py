"""The store of a sweep: what it is addressed by, what it remembers, and what is said where it cannot be."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import sim
from command import Moesim
from sim import documents, files
from sim.errors import InputError
from sim.sweeps import store
from sim.sweeps.points import PointRow
from sim.sweeps.store import Store, StoreError, address
from sweeping import Here, run, sweep_of

EP = {"axes": {"layout.ep": [8, 16]}}


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    first, workers = run(sweep_of(**EP), tmp_path), Here()
    second = run(sweep_of(**EP), tmp_path, workers)
    assert (first["runs"], second["runs"]) == (
        {"computed": 2, "remembered": 0, "of_changes": 0},
        {"computed": 0, "remembered": 2, "of_changes": 0},
    )
    assert workers.batches == []
    assert {**first, "runs": 0} == {**second, "runs": 0}


def test_a_larger_sweep_computes_only_what_is_new(tmp_path: Path) -> None:
    run(sweep_of(**EP), tmp_path)
    found = run(sweep_of(name="other", axes={"layout.ep": [4, 8, 16]}), tmp_path)
    assert found["runs"] == {"computed": 1, "remembered": 2, "of_changes": 0}


def test_points_that_are_the_same_scenario_run_once(tmp_path: Path) -> None:
    axes = {"alias": {"one": {"layout.ep": 8}, "two": {"layout.ep": 8, "workload.tokens_per_rank": 128}}}
    found = run(sweep_of(axes=axes), tmp_path)
    assert found["runs"]["computed"] == 1
    assert found["points"][0]["metrics"] == found["points"][1]["metrics"]


def test_an_address_follows_content_and_nothing_else(tmp_path: Path) -> None:
    one, other = sweep_of(**EP), sweep_of(**EP, title="something else", constraints=["layout.ep < 9"])
    assert address(one.document(0)) == address(other.document(0)) != address(one.document(1))
    loads = tmp_path / "loads.csv"
    gate = {"workload.gate": {"kind": "loads", "file": str(loads)}}
    seen = set()
    for weight in (1, 2):
        loads.write_text("expert,load\n" + "".join(f"{e},{1 + weight * e}\n" for e in range(256)))
        seen.add(address(sweep_of(set=gate, **EP).document(0)))
    assert len(seen) == 2


def test_an_address_follows_the_file_beside_the_scenario_whatever_stands_here_and_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = tmp_path / "beside", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        (folder / "loads").write_text("the same")
    monkeypatch.chdir(here)
    document = sweep_of(set={"workload.gate": {"kind": "loads", "file": "loads"}}, **EP).document(0)
    document.folder = beside
    before = address(document)
    (beside / "loads").write_text("another")
    assert address(document) != before


def test_a_version_is_the_same_for_a_checkout_and_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = Path(sim.__file__).resolve().parent
    package = tmp_path / "site-packages" / "sim"
    kept = shutil.ignore_patterns("__pycache__")
    shutil.copytree(checkout, package, ignore=kept)
    for name in ("hardware", "scenarios"):
        shutil.copytree(checkout.parent / name, package / name, ignore=kept, dirs_exist_ok=True)
    here = store.version.__wrapped__()
    monkeypatch.setattr(files, "package_folder", lambda: package)
    monkeypatch.setattr(documents, "data_folder", lambda name: package / name)
    assert store.version.__wrapped__() == here
    (package / "units.py").write_text("another")
    assert store.version.__wrapped__() != here


def test_a_store_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(sweep_of(**EP), tmp_path)
    monkeypatch.setattr(store, "version", lambda: "9.9.9+0")
    with pytest.raises(
        InputError, match=r"a store of version 0\..*wanted one of this version, 9\.9\.9\+0; --fresh"
    ):
        Store(tmp_path / "sweep.sqlite")
    with Store(tmp_path / "sweep.sqlite", fresh=True) as fresh:
        assert len(fresh) == 0


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "sweep.sqlite"
    file.write_text("not a database, but long enough to be told from one " * 40)
    before = file.read_bytes()
    with pytest.raises(InputError, match="a store of this command"):
        Store(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("folder", ["a file", "a folder with a folder in its place"])
def test_where_no_store_can_be_is_told(folder: str, fresh: bool, tmp_path: Path) -> None:
    if folder == "a file":
        (tmp_path / folder).touch()
    else:
        (tmp_path / folder / "sweep.sqlite").mkdir(parents=True)
    with pytest.raises(InputError, match=r"sweep\.sqlite: "):
        Store(tmp_path / folder / "sweep.sqlite", fresh=fresh)


def test_a_damaged_store_is_told(tmp_path: Path) -> None:
    axes = {"workload.tokens_per_rank": list(range(1, 50))}
    run(sweep_of(axes=axes), tmp_path)
    file = tmp_path / "sweep.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    with pytest.raises(
        InputError, match="malformed; wanted a store of this command, or another --out, or --fresh"
    ):
        run(sweep_of(axes=axes), tmp_path)


@pytest.mark.parametrize("row", [None, "x", 3, "[]", "{}", '{"status": 3}', '{"status": "ok", "colour": 1}'])
def test_a_row_that_somebody_changed_is_told(tmp_path: Path, row: object) -> None:
    with Store(tmp_path / "sweep.sqlite") as store:
        store.connection.execute("INSERT INTO rows VALUES ('a', ?)", (row,))
        with pytest.raises(
            InputError, match=r"sweep\.sqlite: got a row .*; wanted a store of this command, or another --out"
        ):
            store.get(["a"])


def test_a_disk_that_is_full_from_the_start_is_no_fault_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Store) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(Store, "_open", full)
    with pytest.raises(StoreError, match="disk is full") as caught:
        Store(tmp_path / "sweep.sqlite")
    assert caught.value.exit_code == 1


def test_a_disk_too_full_for_the_report_leaves_nothing_half_written(
    moesim: Moesim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "tried.yaml"
    file.write_text(documents.dumps(sweep_of(**EP).tree))
    monkeypatch.setattr(os, "replace", full)
    said = moesim("sweep", str(file), "--jobs", "1", "--out", str(tmp_path / "out"))
    assert said.code == 1
    assert "no space left on device; nothing there is half-written" in said.err
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["sweep.sqlite"]


def test_a_full_disk_keeps_finished_rows_and_says_so(tmp_path: Path) -> None:
    with Store(tmp_path / "sweep.sqlite") as kept:
        kept.put({"a": PointRow("ok", metrics={"x": 1.0})})
        pages = kept.connection.execute("PRAGMA page_count").fetchone()[0]
        kept.connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError, match="disk is full; 1 finished rows are kept") as caught:
            kept.put({str(i): PointRow("failed", "x" * 1000) for i in range(1000)})
        assert caught.value.exit_code == 1
        assert kept.get(["a"])["a"].metrics == {"x": 1.0}


def test_the_store_is_a_plain_database(tmp_path: Path) -> None:
    run(sweep_of(**EP), tmp_path)
    with closing(sqlite3.connect(tmp_path / "sweep.sqlite")) as connection:
        rows = connection.execute("SELECT row FROM rows").fetchall()
    assert {json.loads(text)["status"] for (text,) in rows} == {"ok"}


def test_the_version_names_the_package() -> None:
    assert store.version().startswith(f"{sim.__version__}+")
