"""Shape of a mixture-of-experts transformer: the keys of a model file, and each layer's attention and feed-forward block.

Why this way: a model file holds the keys of the published configuration and nothing derived from them, so it can be compared
with its source line by line. Layers of one kind need no list: `num_dense_layers` and `full_every` say which are which; any
other order is a `pattern` of letters, each a `LayerKind`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field

from sim.descriptions import Description
from sim.workload.attention import GQA, Attention, Natural, Positive
from sim.workload.formats import WeightFormat

MOST_LAYERS = 10**5


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind(Description):
    """One kind of layer: its attention and its feed-forward block."""

    letter: Annotated[str, Field(pattern="^[A-Za-z]$")]
    """Name in the pattern."""
    attention: Annotated[Attention, Field(discriminator="kind")] | Literal["own", "none"] = "own"
    """own: the model's `attention`. none: the layer has a feed-forward block only."""
    mlp: Literal["experts", "dense", "none"] = "experts"
    """Feed-forward block; none: the layer has attention only."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Contents of one layer."""

    attention: Attention | None
    mlp: Literal["experts", "dense", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormats(Description):
    """Formats in which a checkpoint holds the weights of each part; embedding, head, norms and gates are BF16."""

    attention: WeightFormat = "bf16"
    shared: WeightFormat = "bf16"
    """Shared experts."""
    dense: WeightFormat = "bf16"
    """Feed-forward blocks of dense layers."""
    experts: WeightFormat = "bf16"
    """Routed experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Description):
    """A transformer whose feed-forward layers are mostly mixtures of experts; a dense one has one expert, top-1, and no gate."""

    name: str
    num_layers: Annotated[Positive, Field(le=MOST_LAYERS)]
    num_dense_layers: Natural = 0
    """Layers with one dense feed-forward block instead of experts, among `num_layers`."""
    dense_layers: Literal["leading", "alternate"] = "leading"
    """leading: the dense layers come first. alternate: dense and expert layers take turns, a dense one first."""
    layer_kinds: tuple[LayerKind, ...] = ()
    """Kinds of layers by letter, where the keys above do not describe them."""
    pattern: Annotated[str, Field(max_length=MOST_LAYERS)] = ""
    """Order of the layers as letters; `(lllf)*12` repeats what is in brackets."""
    hidden: Positive
    """Width of the residual stream [elements]."""
    attention: Annotated[Attention, Field(discriminator="kind")]
    num_experts: Annotated[Positive, Field(le=2**17)]
    """Routed experts of a layer."""
    num_zero_experts: Natural = 0
    """Experts that give back their input (zero computation): the gate scores them, nothing is sent to them."""
    num_shared_experts: Natural = 0
    """Experts that every token goes through."""
    shared_hidden: Natural = 0
    """Inner width of all shared experts together, where it is no multiple of `expert_hidden`."""
    top_k: Positive
    """Routed experts of a token, beside zero experts the mean number of real ones."""
    num_groups: Positive = 1
    """Groups, equal runs of experts, that a group-limited gate cuts the experts into."""
    top_groups: Positive = 1
    """Groups that a token may reach."""
    group_score: Literal["top2_sum", "max"] = "top2_sum"
    """Score that ranks the groups: the sum of their two best experts', or the best."""
    expert_hidden: Positive
    """Inner width of an expert; three matrices of `hidden` by this (SwiGLU)."""
    expert_latent: Positive | None = None
    """Width that routed experts work on and that is sent to them, where it is not `hidden`; two projections change it."""
    gated_mlp: bool = True
    """SwiGLU: up, gate and down matrices. false: up and down alone."""
    dense_hidden: Natural = 0
    """Inner width of a dense layer's feed-forward block."""
    vocab: Positive
    num_mtp_layers: Annotated[Natural, Field(le=100)] = 0
    """Modules that predict further tokens (MTP), counted apart from everything else."""
    tied_embeddings: bool = False
    """True where the output head is the embedding table, transposed."""
    weights: WeightFormats | None = None
    """Formats of the published weights, in which they are served; left out, `precision` chooses."""
    source: str = "not said"
    """The published configuration that the numbers come from."""

    @property
    def num_moe_layers(self) -> int:
        """Layers with experts."""
        return sum(n for layer, n in self.layers().items() if layer.mlp == "experts")

    @property
    def routed_width(self) -> int:
        """Elements of a token that dispatch sends and combine returns."""
        return self.expert_latent or self.hidden

    @property
    def shared_width(self) -> int:
        """Inner width of all shared experts together."""
        return self.shared_hidden or self.num_shared_experts * self.expert_hidden

    @property
    def up_matrices(self) -> int:
        """Matrices before the activation: up and gate, or up alone."""
        return 2 if self.gated_mlp else 1

    @property
    def gate_width(self) -> int:
        """Experts that the gate scores."""
        return self.num_experts + self.num_zero_experts

    @property
    def has_gate(self) -> bool:
        """False where there is one expert only, and nothing to choose."""
        return self.gate_width > 1

    def routed_alone(self) -> Model:
        """Return the model as its routed experts see it: no shared experts, and no projections around latent ones."""
        return replace(
            self, num_shared_experts=0, shared_hidden=0, hidden=self.routed_width, expert_latent=None
        )

    def dense_for_training(self) -> Model:
        """Return the model as training splits it: a single expert, which all tokens take, is a dense block.

        Tensor parallelism cuts it, and gathers its input again in the backward pass instead of keeping it.
        """
        if self.has_gate or self.shared_width:
            return self
        kinds = (replace(k, mlp="dense") if k.mlp == "experts" else k for k in self.layer_kinds)
        return replace(
            self,
            num_dense_layers=0 if self.pattern else self.num_layers,
            dense_layers="leading",
            layer_kinds=tuple(kinds),
            dense_hidden=self.expert_hidden,
        )

    def is_dense(self, layer_idx: int) -> bool:
        """True for a layer without experts."""
        return self.layer(layer_idx).mlp != "experts"

    def layer(self, layer_idx: int) -> Layer:
        """Attention, windows resolved, and feed-forward block of a layer; MTP modules, counted on, have the last one's and experts."""
        if layer_idx >= self.num_layers:
            return Layer(self.layer(self.num_layers - 1).attention or self.attention, "experts")
        if self.pattern:
            return _kinds(self.attention, self.layer_kinds)[spelled(self.pattern)[layer_idx]]
        dense = layer_idx % 2 == 0 if self.dense_layers == "alternate" else layer_idx < self.num_dense_layers
        return Layer(_attention(self.attention, layer_idx), "dense" if dense else "experts")

    def layers(self) -> Mapping[Layer, int]:
        """Count the layers of each kind."""
        return _counted(self)

    def attentions(self) -> list[Attention]:
        """List the kinds of attention that layers have."""
        return list(dict.fromkeys(layer.attention for layer in self.layers() if layer.attention))


@lru_cache(maxsize=256)
def _attention(attention: Attention, layer_idx: int) -> Attention:
    """The attention of a layer by itself: every so manieth is without the window."""
    if not isinstance(attention, GQA) or attention.full_every is None:
        return attention
    if (layer_idx + 1) % attention.full_every == 0:
        return replace(attention, window=None, chunk=None, full_every=None)
    return replace(attention, full_every=None)


@lru_cache(maxsize=64)
def _kinds(own: Attention, kinds: tuple[LayerKind, ...]) -> Mapping[str, Layer]:
    def attention(kind: LayerKind) -> Attention | None:
        if isinstance(kind.attention, str):
            return own if kind.attention == "own" else None
        return kind.attention

    return {kind.letter: Layer(attention(kind), kind.mlp) for kind in kinds}


@lru_cache(maxsize=64)
def _counted(model: Model) -> Mapping[Layer, int]:
    if model.pattern:
        named = _kinds(model.attention, model.layer_kinds)
        counts = Counter[Layer]()
        for letter, n in Counter(spelled(model.pattern)).items():
            counts[named[letter]] += n
        return counts
    return Counter(model.layer(layer_idx) for layer_idx in range(model.num_layers))


@lru_cache(maxsize=64)
def firsts(model: Model) -> tuple[int, ...]:
    """Find for each layer the first one like it, by which costs know the kinds [num_layers + num_mtp_layers].

    Layers of MTP modules come after the model's.
    """
    known: dict[Layer, int] = {}
    return tuple(
        known.setdefault(model.layer(layer_idx), layer_idx)
        for layer_idx in range(model.num_layers + model.num_mtp_layers)
    )


@lru_cache(maxsize=64)
def spelled(pattern: str) -> str:
    """Write a pattern of layers out, a letter each: letters, and groups of them in brackets with the times that they come.

    ValueError for brackets that do not match, a number that is missing, anything but letters, or too many
    layers.

    Examples
    --------
    >>> spelled("d (lf)*2")
    'dlflf'
    """
    opened = [""]
    at = 0
    text = pattern.replace(" ", "")
    while at < len(text):
        char = text[at]
        at += 1
        if char == "(" and len(opened) < 8:
            opened.append("")
        elif char == ")" and len(opened) > 1 and text[at : at + 1] == "*":
            digits = at + 1
            while digits < len(text) and text[digits] in "0123456789" and digits < at + 7:
                digits += 1
            group, at, times = opened.pop(), digits, text[at + 1 : digits]
            if not times or len(group) * int(times) > MOST_LAYERS:
                raise ValueError(f"'*{times}'")
            opened[-1] += group * int(times)
        elif char.isascii() and char.isalpha():
            opened[-1] += char
        else:
            raise ValueError(f"'{char}'")
        if len(opened[-1]) > MOST_LAYERS:
            raise ValueError(f"more than {MOST_LAYERS} layers")
    if len(opened) > 1:
        raise ValueError("'(' without ')'")
    return opened[0]


def pattern_of(letters: str) -> str:
    """Write letters of layers with groups in brackets, as `spelled` reads them: at each place the group that saves most.

    Examples
    --------
    >>> pattern_of("d" + 12 * "lllf")
    'd (lllf)*12'
    """
    text, at = "", 0
    while at < len(letters):
        best = (0, 1, letters[at])  # letters saved, letters written so, their text
        for size in range(1, min(32, (len(letters) - at) // 2) + 1):
            group, times = letters[at : at + size], 1
            while letters.startswith(group, at + times * size):
                times += 1
            written = f" ({group})*{times} "
            best = max(best, (size * times - len(written), size * times, written))
        text += best[2]
        at += best[1]
    return " ".join(text.split())


def contradictions(model: Model) -> list[tuple[str, str]]:
    """List the keys that are well formed but do not fit the others, each with what would fit."""
    wrong: list[tuple[str, str]] = []
    if model.num_experts % model.num_groups:
        wrong.append(("num_groups", f"a divisor of num_experts, {model.num_experts}"))
    elif model.top_groups > model.num_groups:
        wrong.append(("top_groups", f"at most num_groups, {model.num_groups}"))
    elif model.top_k > model.top_groups * (model.num_experts // model.num_groups):
        held = model.top_groups * (model.num_experts // model.num_groups)
        wrong.append(("top_k", f"at most {held}, the experts of top_groups groups"))
    if model.num_shared_experts and model.shared_hidden:
        wrong.append(("shared_hidden", "num_shared_experts or shared_hidden, not both"))
    dense = bool(model.num_dense_layers)
    if model.pattern or model.layer_kinds:
        problems = _pattern_problems(model)
        wrong += problems
        dense = not problems and any(layer.mlp == "dense" for layer in model.layers())
    elif model.num_dense_layers > model.num_layers:
        wrong.append(("num_dense_layers", f"at most num_layers, {model.num_layers}"))
    elif model.dense_layers == "alternate" and model.num_dense_layers != (model.num_layers + 1) // 2:
        wrong.append(("num_dense_layers", f"{(model.num_layers + 1) // 2}, every other of num_layers"))
    if dense and not model.dense_hidden:
        wrong.append(("dense_hidden", "the inner width of the dense layers"))
    elif dense and not model.has_gate and model.dense_hidden != model.expert_hidden:
        wrong.append(
            ("dense_hidden", f"expert_hidden, {model.expert_hidden}: a single expert is a dense block")
        )
    own = [kind.attention for kind in model.layer_kinds if not isinstance(kind.attention, str)]
    for place, a in (("attention", model.attention), *(("layer_kinds", a) for a in own)):
        if not isinstance(a, GQA):
            continue
        if a.num_heads % a.num_kv_heads:
            wrong.append((place, f"num_heads a multiple of num_kv_heads, {a.num_kv_heads}"))
        if a.window is not None and a.chunk is not None:
            wrong.append((place, "a window or a chunk, not both"))
        if a.full_every is not None and (model.pattern or place == "layer_kinds"):
            wrong.append((place, "no full_every beside a pattern, which says it"))
        elif a.full_every is not None and a.window is None and a.chunk is None:
            wrong.append((place, "a window or a chunk beside full_every"))
    return wrong


def _pattern_problems(model: Model) -> list[tuple[str, str]]:
    letters = [kind.letter for kind in model.layer_kinds]
    if not model.pattern or not letters:
        return [("pattern" if letters else "layer_kinds", "both pattern and layer_kinds")]
    if model.num_dense_layers or model.dense_layers != "leading":
        return [("num_dense_layers", "no dense layers beside a pattern, which says which they are")]
    if len(set(letters)) < len(letters):
        return [("layer_kinds", "a letter of its own for each kind")]
    try:
        order = spelled(model.pattern)
    except ValueError as error:
        return [("pattern", f"letters, and groups like (lllf)*12; {error} is neither")]
    if len(order) != model.num_layers:
        return [("pattern", f"num_layers = {model.num_layers} letters; it has {len(order)}")]
    if unknown := sorted(set(order) - set(letters)):
        return [("pattern", f"letters of layer_kinds: {', '.join(letters)}; not {', '.join(unknown)}")]
    if not any(layer.mlp == "experts" for layer in model.layers()):
        return [("pattern", "a layer with experts")]
    if any(layer.attention is None and layer.mlp == "none" for layer in model.layers()):
        return [("layer_kinds", "attention or a feed-forward block in every kind")]
    return []
