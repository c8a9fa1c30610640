"""Patterns of layers, and the keys of a shape that contradict one another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import InputError
from sim.workload.attention import GQA
from sim.workload.model import kv_bytes_per_token, load_model, parameters
from sim.workload.shape import Layer, pattern_of, spelled

OWN = {"kind": "gqa", "num_heads": 4, "num_kv_heads": 2, "head_dim": 64}
WINDOW = OWN | {"window": 128}
KINDS = [{"letter": "f"}, {"letter": "w", "attention": WINDOW}, {"letter": "d", "mlp": "dense"}]


def inline(**changes: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "name": "tiny", "num_layers": 7, "hidden": 256, "attention": OWN, "num_experts": 16, "top_k": 2, "expert_hidden": 128,
        "dense_hidden": 512, "vocab": 1000, "layer_kinds": KINDS, "pattern": "d (wwf)*2",
    }  # fmt: skip
    return {key: value for key, value in (tree | changes).items() if value is not ...}


@given(st.text("abc", min_size=1, max_size=40))
def test_a_pattern_spells_what_it_was_made_of(letters: str) -> None:
    assert spelled(pattern_of(letters)) == letters


def test_a_pattern_says_the_kind_of_every_layer() -> None:
    model = load_model(inline())
    own, window = (
        GQA(num_heads=4, num_kv_heads=2, head_dim=64),
        GQA(num_heads=4, num_kv_heads=2, head_dim=64, window=128),
    )
    wanted = ["dense", "experts", "experts", "experts"]
    assert [model.layer(i).mlp for i in range(4)] == wanted
    assert [model.layer(i).attention for i in range(4)] == [own, window, window, own]
    assert model.layers() == {Layer(own, "dense"): 1, Layer(window, "experts"): 4, Layer(own, "experts"): 2}
    assert model.num_moe_layers == 6
    assert model.layer(7) == Layer(own, "experts")  # of an MTP module


def test_a_pattern_counts_like_the_short_keys() -> None:
    short = inline(num_dense_layers=1, layer_kinds=..., pattern=..., attention=WINDOW | {"full_every": 3})
    long = inline(
        pattern="d w (fww)*1 fw",
        layer_kinds=[*KINDS[:2], {"letter": "d", "attention": WINDOW, "mlp": "dense"}],
    )
    assert load_model(short).layers() == load_model(long).layers()
    assert parameters(load_model(short)) == parameters(load_model(long))


def test_a_layer_may_be_attention_or_experts_alone() -> None:
    kinds = [{"letter": "A", "mlp": "none"}, {"letter": "E", "attention": "none"}]
    apart = load_model(inline(layer_kinds=kinds, pattern="(AE)*3 A", dense_hidden=...))
    together = load_model(inline(num_layers=3, layer_kinds=..., pattern=..., dense_hidden=...))
    attention = 2 * 256 * 6 * 64 + 256  # with its norm
    assert parameters(apart).total == parameters(together).total + attention
    assert kv_bytes_per_token(apart) == kv_bytes_per_token(together) * 4 / 3


def test_a_window_without_full_layers_is_in_all() -> None:
    model = load_model(inline(attention=WINDOW, layer_kinds=..., pattern=..., dense_hidden=...))
    assert [a.window for a in model.attentions() if isinstance(a, GQA)] == [128]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "dwwf"}, "num_layers = 7 letters; it has 4"),
        ({"pattern": "dwwfwwx"}, "letters of layer_kinds: f, w, d; not x"),
        ({"pattern": "d (wwf)2"}, "'\\)' is neither"),
        ({"pattern": "d (wwf"}, "without '\\)'"),
        ({"pattern": "d wwf; w"}, "';' is neither"),
        ({"pattern": "(d)*999999"}, "is neither"),
        ({"pattern": "((d)*99999)*99999"}, "is neither"),
        ({"pattern": "ddddddd"}, "a layer with experts"),
        ({"pattern": ...}, "both pattern and layer_kinds"),
        ({"layer_kinds": [*KINDS, {"letter": "f", "mlp": "dense"}]}, "a letter of its own"),
        ({"layer_kinds": [*KINDS[:2], {"letter": "d", "attention": "none", "mlp": "none"}]}, "attention or a feed-forward"),
        ({"num_dense_layers": 1}, "no dense layers beside a pattern"),
        ({"attention": WINDOW | {"full_every": 2}}, "no full_every beside a pattern"),
        ({"dense_hidden": ...}, "inner width of the dense layers"),
        ({"shared_hidden": 64, "num_shared_experts": 1}, "not both"),
        ({"attention": OWN | {"full_every": 2}, "layer_kinds": ..., "pattern": ...}, "a window or a chunk beside full_every"),
        ({"layer_kinds": [*KINDS, {"letter": "x", "attention": OWN | {"num_kv_heads": 3}}]}, "a multiple of num_kv_heads, 3"),
        ({"layer_kinds": [*KINDS, {"letter": "xy"}]}, "letter"),
    ],
)  # fmt: skip
def test_keys_of_layers_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(inline(**changes))


def test_mla_without_compressed_queries_has_the_published_size() -> None:
    """27 layers of 13.763 M attention, 26 of 584.8 M, one dense of 81.0 M, two tables of 209.7 M; arXiv 2405.04434: 15.7 B."""
    lite = load_model("deepseek-v2-lite")
    attention = 2048 * 16 * 192 + 2048 * 576 + 512 * 16 * 256 + 2048 * 2048
    assert parameters(lite).attention == attention + 512
    assert parameters(lite).total == pytest.approx(15.706e9, rel=1e-4)
    assert parameters(lite).active == pytest.approx(2.66e9, rel=1e-3)
    assert kv_bytes_per_token(lite) == 27 * 576 * 2
