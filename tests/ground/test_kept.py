"""Files kept from one process to the next: read back whole, made anew where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import kept
from sim.show.pages import page


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_what_is_kept_is_read_and_what_is_damaged_is_not(folder: Path) -> None:
    assert kept.read("thing-1.x") is None
    kept.write("thing-1.x", "thing", b"content")
    assert kept.read("thing-1.x") == b"content"
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert kept.read("thing-1.x") is None


def test_of_a_kind_the_newest_are_kept(folder: Path) -> None:
    for i in range(20):
        kept.write(f"thing-{i}.x", "thing", b"")
    kept.write("other-0.x", "other", b"")
    assert len([*folder.glob("thing-*")]) == 8
    assert kept.read("other-0.x") == b""


def test_the_script_of_figures_is_packed_once_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = page.plotly.__wrapped__()
    with monkeypatch.context() as patch:
        patch.setattr("gzip.compress", None)
        assert page.plotly.__wrapped__() == packed
