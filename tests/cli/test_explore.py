"""The explorer: its cube held to single runs, its page in a browser without a server, and the server that simulates each notch."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import browser
import sim
from command import Moesim
from sim import documents
from sim.answers import cube
from sim.answers.cube_document import CubeSpec
from sim.cli.live import HOST, LiveExplorer
from sim.errors import InfeasibleError, InputError
from sim.scenario import resolve as scenarios
from sim.show.pages.explorer import explorer_html
from sim.sweeps import file
from sim.sweeps.file import Sweep

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
    names = [axis.name for axis in cube.sweep_of("deepep-ep16-h800").space.axes]
    assert names == [
        "cluster.override.gpu.scale_up.bandwidth",
        "cluster.override.nic.bandwidth",
        "workload.tokens_per_rank",
        "machine",
    ]
    decode = cube.sweep_of("decode-batch-sweep")
    axes = {axis.name: axis.values for axis in decode.space.axes}
    assert axes["workload.requests_per_gpu"] == (4, 6, 8, 12, 18)
    assert cube.shown(decode) == ["tpot_s"]


def test_what_cannot_be_explored_is_told() -> None:
    with pytest.raises(InputError, match="kind flows"):
        cube.sweep_of("flows-example")
    with pytest.raises(InputError, match="no-such"):
        cube.sweep_of("no-such")
    many = TEXT.replace("[1, 4]", "[1, 4]\n  workload.tokens_per_rank: {from: 1, to: 4000, step: 1}")
    with pytest.raises(InfeasibleError, match=r"32,000 points of an explorer; the limit is 5,000"):
        cube.cube(file.sweep_of(documents.loads(many, "many.yaml")))


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


def test_text_of_a_sweep_cannot_become_markup(made: dict[str, Any]) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    base = {**made["base"], "title": evil}
    assert evil not in explorer_html({**made, "title": evil, "name": evil, "base": base})


# --- in a browser ----------------------------------------------------------------------------------------------------

DRAG = """(() => {{
  const slider = document.getElementById("axis-{axis}");
  slider.value = {place};
  slider.dispatchEvent(new Event("input", {{bubbles: true}}));
  slider.dispatchEvent(new Event("change", {{bubbles: true}}));
  return moesim.settled();
}})()"""
BAR = """(() => {
  const bar = document.querySelector("#ratios .bar");
  return [parseFloat(bar.style.width), bar.style.backgroundColor, document.getElementById("moved").textContent];
})()"""
NVLINK, GROUPS = 0, 1


def drag(tab: browser.Tab, axis: int, place: int) -> tuple[float, str, str]:
    tab.run(DRAG.format(axis=axis, place=place))
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
        assert {request.partition("?")[0].rpartition("/")[2] for request in tab.requests} <= {"", "point"}


def test_a_port_that_is_taken_is_told(moesim: Moesim, live: LiveExplorer) -> None:
    said = moesim("explore", "--port", str(live.server.server_port))
    assert said.code == 2
    assert "a port that is free" in said.err
