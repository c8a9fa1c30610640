"""The explorer: its cube held to single runs, its page in a browser without a server, and the server that simulates each notch."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import browser
import sim
from balanced import SCENARIO
from command import Moesim
from sim import documents
from sim.answers import cube, sliders
from sim.answers.changed import lay
from sim.answers.cube_document import CubeSpec
from sim.answers.preview import num_unlike, preview
from sim.cli.live import HOST, LiveExplorer
from sim.engine import fluid, fluid_loop
from sim.errors import InfeasibleError, InputError
from sim.scenario import resolve as scenarios
from sim.show.pages.explorer import explorer_html
from sim.show.pages.report import report_html
from sim.sweeps import file
from sim.sweeps.file import Sweep
from sim.sweeps.points import evaluate

TEXT = """\
name: small
title: Two sliders
base: deepep-ep32-h800
set: {workload.gate: {kind: group_limited, sampling: expected}}
axes:
  cluster.override.gpu.scale_up.bandwidth: [200 GB/s, 450 GB/s]
  workload.gate.top_groups: [1, 4]
  machine:
    yours: {}
    H100: {cluster.hardware: h100, cluster.override: {}}
given: machine
objectives: {dispatch.time_s: minimise, combine.time_s: minimise}
"""
needs_browser = pytest.mark.skipif(browser.find() is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return file.sweep_of(documents.loads(TEXT, "small.yaml"))


@pytest.fixture(scope="module")
def made(sweep: Sweep) -> dict[str, Any]:
    return cube.cube(sweep)


def one_by_one(groups: int, **settings: Any) -> list[float]:
    gate = {"kind": "group_limited", "sampling": "expected", "top_groups": groups}
    asked = {
        "workload.gate": gate,
        "expect": {},
        **{key.replace("__", "."): v for key, v in settings.items()},
    }
    metrics = sim.run("deepep-ep32-h800", asked)["metrics"]
    return [metrics[way]["time_s"] for way in ("dispatch", "combine")]


def test_a_point_is_what_a_run_by_itself_gives(made: dict[str, Any]) -> None:
    """Points stand slider by slider, the last fastest; machines stand next to one another."""
    fast = {"cluster__override": {"gpu.scale_up.bandwidth": "450 GB/s"}}
    assert made["points"][0][0]["values"] == one_by_one(1)
    assert made["points"][1][0]["values"] == one_by_one(4)
    assert made["points"][2][0]["values"] == one_by_one(1, **fast)
    assert {tuple(row[1]["values"]) for row in made["points"][0::2]} == {
        tuple(one_by_one(1, cluster__hardware="h100"))
    }


def test_sliders_start_at_what_the_base_says(made: dict[str, Any]) -> None:
    """An H800 has 200 GB/s of NVLink, and DeepSeek-V3 reaches four groups."""
    assert made["start"] == [0, 1]


def test_a_scenario_is_explored_by_its_links_and_its_kind() -> None:
    names = [axis.name for axis in sliders.sweep_of("deepep-ep16-h800").space.axes]
    assert names == [
        "cluster.override.gpu.scale_up.bandwidth",
        "cluster.override.nic.bandwidth",
        "workload.tokens_per_rank",
        "machine",
    ]
    live = sliders.sweep_of("deepep-ep16-h800", live=True)
    assert [axis.name for axis in live.space.axes] == [
        *names[:-1], "EP", "model.top_k", "workload.dispatch_dtype", "NICs", "machine"
    ]  # fmt: skip
    decode = sliders.sweep_of("decode-batch-sweep")
    axes = {axis.name: axis.values for axis in decode.space.axes}
    assert axes["workload.requests_per_gpu"] == (4, 6, 8, 12, 18)
    assert cube.shown(decode) == ["tpot_s"]


def test_every_notch_of_a_live_explorer_runs(tmp_path: Path) -> None:
    """It starts at the scenario as it is, and each slider that only a live one has moves the time its way."""
    explorer = LiveExplorer(sliders.sweep_of("deepep-ep16-h800", live=True), tmp_path)
    explorer.server.server_close()
    described = cube.described(explorer.sweep)
    names, start = [axis["name"] for axis in described["axes"]], described["start"]

    def total_s(**moved: int) -> float:
        places = (moved.get(name.rpartition(".")[2], own) for name, own in zip(names, start, strict=True))
        return float(sum(explorer.point(tuple(places))[0]["values"]))

    metrics = sim.run("deepep-ep16-h800", {"expect": {}})["metrics"]
    own_s = sum(metrics[way]["time_s"] for way in ("dispatch", "combine"))
    assert total_s() == pytest.approx(own_s)
    assert total_s(top_k=0) < own_s < total_s(top_k=4)
    assert total_s(dispatch_dtype=1) > own_s
    assert own_s < total_s(NICs=1) <= total_s(NICs=2)


def test_sliders_of_ep_and_skew_have_what_a_scenario_can_be() -> None:
    """EP divides the GPUs that stay; where all GPUs are one group, nodes come with it. What has no skew is set beside the usual one."""

    def axes(name: str) -> dict[str, Any]:
        sweep = sliders.sweep_of(name, live=True)
        return {axis.name: dict(zip(axis.values, axis.sets, strict=True)) for axis in sweep.space.axes}

    def sets(chosen: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
        return {documents.dotted(path): value for path, value in chosen.items()}

    step, balanced, prefill = axes("v3-training-h800"), axes("mixtral-training"), axes("v3-prefill-ep32")
    assert list(step["EP"]) == ["16", "32", "64", "128"], "256 does not divide the 128 GPUs of a stage"
    assert sets(step["EP"]["16"]) == {"layout.ep": 16}
    assert list(balanced["EP"]) == ["2", "4", "8"], "of 8 experts"
    assert sets(prefill["EP"]["16"]) == {"layout.ep": 16, "cluster.nodes": 2}
    assert sets(step["skew"]["as it is"]) == sets(balanced["skew"]["none"]) == {}
    usual = {"kernel_jitter": 0.02, "gpu_spread": 0.015, "routed_load": 0.075}
    for twice in (step["skew"]["twice"], balanced["skew"]["twice the usual"]):
        assert sets(twice) == {f"workload.skew.{key}": 2 * value for key, value in usual.items()}
    assert "routed_load" not in str(prefill["skew"])
    assert list(axes("skewed-eplb")["workload.gate.exponent"]) == [0.0, 0.3, 0.45, 0.6, 0.9, 1.35]
    assert {"overlap", "skew"} <= set(prefill)


def test_more_skew_takes_a_pass_longer(tmp_path: Path) -> None:
    explorer = LiveExplorer(sliders.sweep_of("v3-prefill-ep32", live=True), tmp_path)
    explorer.server.server_close()
    described = cube.described(explorer.sweep)
    place = [axis["name"] for axis in described["axes"]].index("skew")
    times = []
    for notch in range(4):
        places = list(described["start"])
        places[place] = notch
        times.append(explorer.point(tuple(places))[0]["values"][0])
    assert times == sorted(set(times))


def test_the_collectives_of_a_notch_run_in_machine_code_that_was_prepared(
    sweep: Sweep, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of entries are too few for a run by itself to have code made; an explorer has it beforehand."""
    fluid.prepare()
    monkeypatch.setattr(fluid_loop.advance, "plain", None)
    monkeypatch.setattr("sim.engine.machine_code.MachineCode._make", None)
    for now, before in zip(cube.cube(sweep)["points"], made["points"], strict=True):
        assert [point["values"] for point in now] == [pytest.approx(point["values"]) for point in before]


def test_what_cannot_be_explored_is_told() -> None:
    with pytest.raises(InputError, match="kind flows"):
        sliders.sweep_of("flows-example")
    with pytest.raises(InputError, match="no-such"):
        sliders.sweep_of("no-such")
    many = TEXT.replace("[1, 4]", "[1, 4]\n  workload.tokens_per_rank: {from: 1, to: 4000, step: 1}")
    with pytest.raises(InfeasibleError, match=r"32,000 points of an explorer; the limit is 5,000"):
        cube.cube(file.sweep_of(documents.loads(many, "many.yaml")))


def test_fewer_notches_are_some_of_all_with_the_one_that_it_starts_at(moesim: Moesim) -> None:
    whole = sliders.sweep_of("deepep-ep16-h800")
    nic = "cluster.override.nic.bandwidth"

    def values(sweep: Sweep) -> dict[str, Any]:
        return {axis.name: axis.values for axis in sweep.space.axes}

    assert values(cube.thinned(whole, 3))[nic] == ("25 GB/s", "50 GB/s", "112.5 GB/s")
    assert values(cube.thinned(whole, 1))[nic] == ("50 GB/s",)
    assert values(cube.thinned(whole, 2))["machine"] == values(whole)["machine"]
    assert values(cube.thinned(whole, 9)) == values(whole)
    told = moesim("explore", "deepep-ep16-h800", "--notches", "1", "--json").json
    assert [axis["values"] for axis in told["axes"]] == [["200 GB/s"], ["50 GB/s"], ["4096"]]


def test_what_would_take_hours_is_refused_with_its_count_and_what_makes_it_less() -> None:
    """130 runs: an H100 keeps its own links, and an H800 is there among yours. Each is of 16 x 64 x 120 microbatches that end by themselves."""
    sweep = sliders.sweep_of("v3-training-h800")
    assert sweep.space.size == 375
    step = sweep.document(0)
    assert num_unlike(step) == 16 * 64 * 120
    many = replace(sweep, base=lay(sweep.base, {"workload.microbatches": 1200}))
    count = r"130 runs = 159,744,000 microbatches of unlike ranks; the limit is 67,108,864: .*--notches"
    with pytest.raises(InfeasibleError, match=count):
        cube.cube(many)


def test_an_export_that_is_stopped_keeps_what_has_run_nearest_first(
    sweep: Sweep, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts at the second setting: both machines of it are there."""
    runs = iter(range(3))

    def some(*args: Any) -> Any:
        if next(runs) == 2:
            raise KeyboardInterrupt
        return evaluate(*args)

    for name in ("sim.answers.cube.evaluate", "sim.sweeps.points.evaluate"):
        monkeypatch.setattr(name, lambda *args, **_: some(*args[:2]))
    part = cube.cube(sweep)
    assert part["partial"] == {"finished": 2, "of": 6, "what": "runs"}
    assert part["points"][1] == made["points"][1]
    assert "stopped" in part["points"][0][0]["reason"]
    assert CubeSpec.model_validate(part).partial
    assert "partial" not in made


def test_long_runs_are_shared_out_and_give_the_same(
    sweep: Sweep, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.answers.cube._LONG_S", 0.0)
    told: list[str] = []
    for now, before in zip(cube.cube(sweep, told.append)["points"], made["points"], strict=True):
        assert [point["values"] for point in now] == [pytest.approx(point["values"]) for point in before]
    assert told[0].startswith("small: 6 runs, some ")


def test_the_command_writes_a_page_and_the_cube(moesim: Moesim, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(TEXT)
    said = moesim(
        "explore", str(tmp_path / "small.yaml"), "--export", str(tmp_path / "new" / "page.html"), "--json"
    )
    assert said.code == 0
    assert CubeSpec.model_validate(said.json).schema_ == "moesim.cube/1"
    page = (tmp_path / "new" / "page.html").read_text()
    assert len(page) < 3e6
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    refused = moesim("explore", "no-such", "--export", str(tmp_path / "page.html"))
    assert refused.code == 2
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_a_sweep_that_has_run_has_its_points_under_sliders(
    moesim: Moesim, made: dict[str, Any], tmp_path: Path
) -> None:
    """The same page as an explorer's of the same sweep, of the points that ran."""
    (tmp_path / "small.yaml").write_text(TEXT)
    ran = moesim("sweep", str(tmp_path / "small.yaml"), "--jobs", "1", "--out", str(tmp_path / "out"))
    assert ran.code == 0
    assert "sliders.html" in ran.err
    assert (tmp_path / "out" / "sliders.html").read_text() == explorer_html(made)


def test_text_of_a_sweep_cannot_become_markup(made: dict[str, Any]) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    base = {**made["base"], "title": evil}
    assert evil not in explorer_html({**made, "title": evil, "name": evil, "base": base})


# --- in a browser ----------------------------------------------------------------------------------------------------

MOVE = """
  const slider = document.getElementById("axis-{axis}");
  slider.value = {place};
  slider.dispatchEvent(new Event("input", {{bubbles: true}}));
  slider.dispatchEvent(new Event("change", {{bubbles: true}}));
"""
BAR = """(() => {
  const bar = document.querySelector("#ratios .bar");
  return [parseFloat(bar.style.width), bar.style.backgroundColor, document.getElementById("moved").textContent];
})()"""
NVLINK, GROUPS = 0, 1


def drag(tab: browser.Tab, axis: int, place: int) -> tuple[float, str, str]:
    tab.run(f"(() => {{ {MOVE.format(axis=axis, place=place)} return moesim.settled(); }})()")
    return tuple(tab.run(BAR))


def story(tab: browser.Tab) -> None:
    """With four groups NVLink moves nothing; with one it does."""
    before = drag(tab, NVLINK, 1)
    after = drag(tab, NVLINK, 0)
    assert after[:2] == before[:2]
    assert after[2] == "NVLink from 450 GB/s to 200 GB/s: nothing moves, the NIC binds."
    one = drag(tab, GROUPS, 0)
    assert one[0] > 1.2 * after[0]
    assert one[1] != after[1]
    assert one[2].endswith("NVLink binds.")


@pytest.mark.slow
@needs_browser
def test_the_still_page_tells_the_story_without_a_server(made: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(explorer_html(made), encoding="utf-8")
    with browser.tab() as tab:
        for look in ({}, {"dark": True}, {"width": 390, "height": 844}):
            tab.open(path, **look)
            assert tab.run("document.documentElement.scrollWidth <= innerWidth")
            story(tab)
        where = tab.run("location.hash")
        told = json.loads(tab.run("moesim.scenario()"))
        tab.run(f"location.hash = {where.replace('top_groups=1', 'top_groups=4')!r}")
        tab.settle()
        assert tab.run("moesim.state()") == [0, 1]
        assert (tab.errors, tab.requests) == ([], [])
    assert "top_groups=1" in where
    scenario = scenarios.resolve(documents.loads(json.dumps(told), "saved.yaml"))
    assert scenario.document["workload"]["gate"]["top_groups"] == 1
    assert scenario.document["cluster"]["override"] == {"gpu.scale_up.bandwidth": "200 GB/s"}


TAB, LEFT, RIGHT = ("Tab", 9), ("ArrowLeft", 37), ("ArrowRight", 39)


def by_keyboard(tab: browser.Tab) -> None:
    """Every slider is reached by Tab and moved by arrows, and a screen reader is told its name, its value and what it did."""
    focus = "document.activeElement.id"
    reached: dict[str, str] = {}
    for _ in range(30):
        tab.press(*TAB)
        where = tab.run(focus)
        if not where.startswith("axis-"):
            reached[where] = ""
            continue
        for key in (RIGHT, LEFT):
            before = tab.run("JSON.stringify(moesim.state())")
            tab.press(*key)
            tab.run("moesim.settled()")
            if tab.run("JSON.stringify(moesim.state())") != before:
                reached[where] = tab.run("document.getElementById('moved').textContent")
    sliders = tab.run("AXES.length")
    assert {f"axis-{i}" for i in range(sliders)} <= set(reached)
    assert {"save", "link"} <= set(reached)
    names = tab.run("CUBE.labels")
    assert all(reached[f"axis-{i}"].startswith(f"{name} from ") for i, name in enumerate(names))
    values = tab.run("AXES.map((axis, i) => axis.values[state[i]])")
    assert tab.spoken("slider") == names
    assert (
        tab.run("AXES.map((_, i) => document.getElementById(`axis-${i}`).getAttribute('aria-valuetext'))")
        == values
    )
    assert all(tab.spoken("image")), "every picture has a name"
    assert tab.run("document.querySelector('.answer').getAttribute('aria-live')") == "polite"
    assert tab.run("document.querySelector('.answer').contains(document.getElementById('moved'))")


@pytest.mark.slow
@needs_browser
def test_the_still_page_is_moved_by_the_keyboard_alone(made: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(explorer_html(made), encoding="utf-8")
    with browser.tab() as tab:
        tab.open(path)
        by_keyboard(tab)
        assert (tab.errors, tab.requests) == ([], [])


@pytest.mark.slow
@needs_browser
def test_a_notch_is_drawn_within_a_frame(made: dict[str, Any], tmp_path: Path) -> None:
    """A drag lays the page out once a frame, and changes what moves alone: bars, sentences and numbers, not the curve's shapes."""
    path = tmp_path / "page.html"
    path.write_text(explorer_html(made), encoding="utf-8")
    frames = 30
    with browser.tab() as tab:
        tab.open(path)
        tab.run("window.kept = [...document.querySelectorAll('#curve circle, #numbers td, .bar')]")
        changes, layouts = tab.frames(frames, MOVE.format(axis=NVLINK, place="frame % 2"))
        assert layouts <= frames + 5
        assert min(changes) > 0
        assert max(changes) < 80
        assert tab.run("kept.length >= 20 && kept.every(node => node.isConnected)")


# --- live ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def live(sweep: Sweep, tmp_path: Path) -> Iterator[LiveExplorer]:
    explorer = LiveExplorer(sweep, tmp_path / "saved")
    thread = threading.Thread(
        target=explorer.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    yield explorer
    explorer.server.shutdown()
    explorer.server.server_close()
    thread.join()


def ask(live: LiveExplorer, path: str, *, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    address = f"http://{HOST}:{live.server.server_port}{path.replace('TOKEN', live.token)}"
    request = urllib.request.Request(address, method=method, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_live_point_is_that_of_the_cube(live: LiveExplorer, made: dict[str, Any]) -> None:
    for place, at in enumerate(("0,0", "0,1", "1,0", "1,1")):
        status, text = ask(live, f"/point?at={at}&token=TOKEN")
        assert status == 200
        assert json.loads(text) == made["points"][place]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 403),
        ("/?token=guess", 403),
        ("/point?at=0,0", 403),
        ("/../../etc/passwd?token=TOKEN", 404),
        ("/point?at=0&token=TOKEN", 400),
        ("/point?at=0,9&token=TOKEN", 400),
        ("/point?at=0,-1&token=TOKEN", 400),
        ("/point?at=a,b&token=TOKEN", 400),
        ("/save?at=0,0&token=TOKEN", 404),
    ],
)
def test_what_is_not_to_be_answered_is_refused(live: LiveExplorer, path: str, status: int) -> None:
    assert ask(live, path)[0] == status


def test_the_setting_of_the_sliders_is_played_link_by_link(live: LiveExplorer) -> None:
    """Of the first machine and the last, as they stand: with one group and 200 GB/s of NVLink an H800 ends later than an H100."""
    status, page = ask(live, "/motion?at=0,0&token=TOKEN")
    assert status == 200
    played = json.loads(re.search('id="motion">(.*?)</script>', page)[1])
    assert [machine["label"] for machine in played["machines"]] == ["Your machine", "H100"]
    ours, theirs = (machine["end_s"] for machine in played["machines"])
    assert (ours, theirs) == tuple(
        pytest.approx(sum(point["values"]), rel=0.05) for point in live.point((0, 0))
    )
    assert ours > 1.1 * theirs
    assert ask(live, "/motion?at=0,0")[0] == 403


def test_the_report_of_a_setting_is_of_what_its_bars_show(live: LiveExplorer) -> None:
    """The first machine has the links that the sliders say, the last its own."""
    result = live.result((0, 0))
    points = live.point((0, 0))
    for variant, point in zip(result["variants"].values(), points, strict=True):
        times = [variant["metrics"][way]["time_s"] for way in ("dispatch", "combine")]
        assert times == pytest.approx(point["values"])
    assert list(result["variants"]) == ["your-machine", "H100"]
    status, page = ask(live, "/report?at=0,0&token=TOKEN")
    assert (status, page) == (200, report_html(result))
    assert ask(live, "/report?at=0,0")[0] == 403


def test_a_page_of_another_name_is_refused(live: LiveExplorer) -> None:
    assert ask(live, "/?token=TOKEN", host="evil.example:80")[0] == 403
    assert ask(live, "/?token=TOKEN", host=f"localhost:{live.server.server_port}")[0] == 200
    assert live.server.server_address[0] == HOST == "127.0.0.1"


def test_a_saved_scenario_runs_and_is_written_over_by_none(live: LiveExplorer) -> None:
    for number in (1, 2):
        status, text = ask(live, "/save?at=1,0&token=TOKEN", method="POST")
        assert status == 200
        assert f"small-{number}.yaml is written" in text
    saved = sorted(path.name for path in live.folder.iterdir())
    assert saved == ["small-1.yaml", "small-2.yaml"]
    metrics = sim.run(live.folder / "small-1.yaml")["metrics"]
    assert [metrics[way]["time_s"] for way in ("dispatch", "combine")] == live.point((1, 0))[0]["values"]
    assert ask(live, "/save?at=1,0", method="POST")[0] == 403


@pytest.mark.slow
@needs_browser
def test_the_live_page_tells_the_same_story(live: LiveExplorer) -> None:
    with browser.tab() as tab:
        tab.visit(live.url)
        story(tab)
        assert tab.errors == []
        by_keyboard(tab)
        assert {request.partition("?")[0].rpartition("/")[2] for request in tab.requests} <= {"", "point"}
        assert all(request.startswith(f"http://{HOST}:") for request in tab.requests)
        tab.visit(tab.run("document.getElementById('play').href"))
        assert tab.run("document.getElementById('now-0').textContent")
        assert tab.errors == []


# --- previews --------------------------------------------------------------------------------------------------------

STEP = SCENARIO.format(fabric="{kind: fat_tree}", faults="[]")
UNLIKE = "skew: {routed_load: 0.3, kernel_jitter: 0, gpu_spread: 0.05}"
STEPS = {
    "name": "steps",
    "title": "A step of unlike ranks",
    "base": documents.loads(re.sub("skew: .*", UNLIKE, STEP), "step.yaml").tree,
    "axes": {
        "cluster.override.nic.bandwidth": ["25 GB/s", "50 GB/s", "75 GB/s"],
        "machine": {"yours": {}, "H800": {"cluster.override": {}}},
    },
    "given": "machine",
    "objectives": {"step_time_s": "minimise"},
}


def test_a_step_of_unlike_ranks_has_a_preview_where_it_takes_seconds() -> None:
    long = documents.load(documents.find("v3-training-h800", "scenarios", "scenario"))
    found = preview(long)
    assert found is not None
    assert set(found.tree["workload"]["skew"].values()) == {0}
    assert {k: v for k, v in found.tree["workload"].items() if k != "skew"} == long.tree["workload"]
    assert preview(found) is None
    for quick in ("mixtral-training", "deepep-ep8-h800", "v3-decode-ep144"):
        assert preview(documents.load(documents.find(quick, "scenarios", "scenario"))) is None


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveExplorer]:
    """An explorer of steps that count as long ones."""
    monkeypatch.setattr("sim.answers.preview._MOST", 1)
    explorer = LiveExplorer(file.sweep_of(documents.loads(json.dumps(STEPS), "steps.yaml")), tmp_path)
    thread = threading.Thread(
        target=explorer.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    yield explorer
    explorer.end_exact()
    explorer.server.shutdown()
    explorer.server.server_close()
    thread.join()


def step_s(nic: str, skew: str) -> float:
    text = re.sub("skew: .*", skew, STEP)
    scenario = documents.loads(text, "step.yaml").tree | {"expect": {}}
    scenario["cluster"]["override"] = {"nic.bandwidth": nic}
    return float(sim.run(scenario)["metrics"]["step_time_s"])


def test_a_long_step_is_told_at_once_with_alike_ranks_and_then_exactly(slow: LiveExplorer) -> None:
    alike = "skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}"
    first = slow.point((0,))
    assert [entry["preview"] for entry in first] == [True, True]
    assert [entry["values"] for entry in first] == [[step_s("25 GB/s", alike)], [step_s("50 GB/s", alike)]]
    exact = slow.exact((0,))
    assert exact is not None
    assert [entry["values"] for entry in exact] == [[step_s("25 GB/s", UNLIKE)], [step_s("50 GB/s", UNLIKE)]]
    assert exact[0]["values"] > first[0]["values"]
    assert slow.point((0,)) == exact
    assert slow.point((1,)) == [exact[1]] * 2
    assert all(entry["preview"] for entry in slow.point((2,))), "alike ranks are set beside alike ranks alone"


def test_an_exact_answer_that_nobody_waits_for_is_given_up(
    slow: LiveExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Never:
        """Processes that end nothing until they are closed."""

        def __init__(self) -> None:
            self.future: Future[Any] = Future()

        def submit(self, batch: object) -> Future[Any]:
            return self.future

        def close(self, *, now: bool) -> None:
            self.future.cancel()

    began = threading.Event()
    monkeypatch.setattr("sim.cli.live.start", lambda: began.set() or Never())
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(ask(slow, "/exact?at=0&token=TOKEN")[0]))
    asking.start()
    assert began.wait(60)
    monkeypatch.undo()
    slow._known = {cube.run_address(document): {"values": [1.0]} for document in slow.documents((2,))}
    assert slow.exact((2,)) == [{"values": [1.0]}] * 2
    asking.join(60)
    assert answers == [409]


def test_a_notch_takes_the_cores_from_an_exact_answer_to_another(
    slow: LiveExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that only fills the curve, or asks for the same setting again, leaves it running."""
    ended: list[bool] = []
    running = SimpleNamespace(close=lambda *, now: ended.append(now))
    slow._processes, slow._exact_at = running, (0,)
    slow.point((1,), urgent=False)
    slow.point((0,))
    assert not ended
    slow.point((2,))
    assert ended == [True]


@pytest.mark.slow
@needs_browser
def test_a_page_says_that_it_shows_a_preview_until_it_does_not(slow: LiveExplorer) -> None:
    told = "document.getElementById('wait').textContent"
    pale = "document.querySelector('.explorer').classList.contains('preview')"
    with browser.tab() as tab:
        tab.visit(slow.url)  # settles once the exact answer is there
        assert (tab.run(told), tab.run(pale)) == ("", False)
        seen = f"""(async () => {{ {MOVE.format(axis=0, place=0)};
          const end = Date.now() + 60000;
          while (!({told}).startsWith("Preview")) {{ if (Date.now() > end) return "never"; await new Promise(done => setTimeout(done, 5)); }}
          return [{told}, {pale}]; }})()"""
        words, is_pale = tab.run(seen)
        assert words.startswith("Preview: all ranks alike")
        assert is_pale
        tab.run("moesim.settled()")
        assert (tab.run(told), tab.run(pale)) == ("", False)
        assert tab.errors == []


def test_a_machine_overridden_by_what_it_has_is_run_once(sweep: Sweep) -> None:
    base = sweep.document(0)
    plain, same, other = (
        lay(base, {"cluster.override": override})
        for override in ({}, {"gpu.scale_up.bandwidth": "200 GB/s"}, {"gpu.scale_up.bandwidth": "201 GB/s"})
    )
    assert cube.run_address(plain) == cube.run_address(same) != cube.run_address(other)


def test_a_port_that_is_taken_is_told(moesim: Moesim, live: LiveExplorer) -> None:
    said = moesim("explore", "--port", str(live.server.server_port))
    assert said.code == 2
    assert "a port that is free" in said.err
