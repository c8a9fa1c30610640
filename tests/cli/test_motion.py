"""An all-to-all in motion: frames add up to the run, two machines share a clock, and a page plays them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import browser
import sim
from command import Moesim
from sim.answers.motion import motion
from sim.errors import InfeasibleError, InputError
from sim.scenario import settings as scenario_settings
from sim.show.pages.motion import motion_html

QUICK = ("workload.tokens_per_rank=512", "expect={}")


@pytest.fixture(scope="module")
def played() -> dict[str, Any]:
    return motion(scenario_settings.read("deepep-ep16-h800", QUICK))


@pytest.mark.parametrize("machine", ["h800", "h100"])
def test_frames_add_up_to_the_time_that_each_link_is_busy(played: dict[str, Any], machine: str) -> None:
    run = sim.run("deepep-ep16-h800", [*QUICK, f"cluster.hardware={machine}"])
    recorded = played["machines"][machine]
    for name, course in recorded["links"].items():
        assert max(course) <= 1.0
        assert min(course) >= 0.0
        assert sum(course) * played["frame_s"] == pytest.approx(run["links"][name]["busy_s"], rel=0.01)
    for name, kernel in recorded["kernels"].items():
        spent = kernel["end_s"] - kernel["start_s"]
        assert spent == pytest.approx(run["metrics"][name]["completion_time_s"])


def test_both_machines_have_one_clock(played: dict[str, Any]) -> None:
    ends = [machine["end_s"] for machine in played["machines"].values()]
    assert played["frames"] * played["frame_s"] == pytest.approx(max(ends))
    fast = played["machines"]["h100"]
    after = int(fast["end_s"] / played["frame_s"]) + 1
    assert not any(value for course in fast["links"].values() for value in course[after:])


def test_variants_that_differ_in_their_machine_alone_are_played() -> None:
    both = motion(scenario_settings.read("h800-vs-h100", ("workload.tokens_per_rank=64",)))
    assert list(both["machines"]) == ["h800", "h100"]
    assert both["nodes"] == 1
    alone = motion(scenario_settings.read("deepep-ep8-h800", (*QUICK, "cluster.hardware=h100")))
    assert list(alone["machines"]) == ["h100", "h800"]


def test_what_cannot_be_played_is_told(moesim: Moesim) -> None:
    with pytest.raises(InputError, match="kind decode"):
        motion(scenario_settings.read("v3-decode-ep144"))
    with pytest.raises(InputError, match="a course in time"):
        motion(scenario_settings.read("deepep-ep8-h800", (*QUICK, "fidelity=closed_form")))
    with pytest.raises(InfeasibleError, match="128 GPUs"):
        motion(scenario_settings.read("deepep-ep64-h800", (*QUICK, "cluster.nodes=16", "layout.ep=128")))
    said = moesim("explore", "--motion")
    assert said.code == 2
    assert "--export" in said.err


def test_the_command_writes_a_page_that_fetches_nothing(moesim: Moesim, tmp_path: Path) -> None:
    said = moesim("explore", "deepep-ep8-h800", "--motion", "--export", str(tmp_path / "page.html"), "--json")
    assert said.code == 0
    assert said.json["schema"] == "moesim.motion/1"
    page = (tmp_path / "page.html").read_text()
    assert len(page) < 3e6
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
def test_the_page_plays_pauses_and_shows_any_time(played: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(motion_html(played), encoding="utf-8")
    now = "[0, 1].map(i => document.getElementById(`now-${i}`).textContent)"
    flowing = "[0, 1].map(i => [...document.querySelectorAll(`#stage-${i} .flow`)].map(one => (one.getAttribute('d') || '').split('M').length - 1).reduce((a, b) => a + b))"
    with browser.tab() as tab:
        for look in ({}, {"dark": True}, {"width": 390, "height": 844}):
            tab.open(path, **look)
            assert tab.run("moesim.playing()")
            tab.run("document.getElementById('play').click()")
            assert not tab.run("moesim.playing()")
            tab.run("moesim.seek(20)")
            assert all(text.startswith("dispatch, until") for text in tab.run(now))
            assert tab.run(flowing) == [64, 64]
            tab.run(f"moesim.seek({played['frames'] - 1})")
            first, second = tab.run(now)
            assert first.startswith("combine, until")
            assert second.startswith("ended after")
            assert tab.run(flowing)[1] == 0
            assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        assert (tab.errors, tab.requests) == ([], [])


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
def test_a_frame_changes_paths_of_levels_not_links(tmp_path: Path) -> None:
    """Links that are equally full are one path, so that a frame of 64 GPUs changes tens of things, not the 1,024 links of two machines."""
    played = motion(scenario_settings.read("deepep-ep64-h800", QUICK))
    links = sum(len(machine["links"]) for machine in played["machines"].values())
    path = tmp_path / "page.html"
    path.write_text(motion_html(played), encoding="utf-8")
    frames = 40
    with browser.tab() as tab:
        tab.open(path)
        tab.run("moesim.seek(0)")
        changes, layouts = tab.frames(frames, "moesim.seek(frame * 6)")
        assert layouts <= frames + 5
        assert sum(changes) / frames < 100 < links / 5
