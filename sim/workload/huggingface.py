"""Publishers' configurations (`config.json`, keys as in Hugging Face transformers) as model documents.

A file is read like any YAML of a user, bounded and with a line for each key (JSON is YAML); its keys are translated by
`huggingface_keys.SYNONYMS`, its layers listed one by one and written as a pattern where they are not alike. Of a file for
several media only the text model is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sim import documents, files, limits
from sim.documents import Document
from sim.errors import InputError, Mark, Problem
from sim.workload import shape
from sim.workload.huggingface_attention import attention
from sim.workload.huggingface_keys import (
    BY_LAYER,
    FAMILIES,
    INNER,
    NOTES,
    REFUSED,
    SHORTCUT,
    SYNONYMS,
    described,
    is_unknown,
    letters,
    name_of,
    one_number,
    weights_in_words,
)
from sim.workload.quantization import part_formats

_WANTED = "a publisher's configuration of a model (config.json)"
_NESTED = (
    "text_config", "language_config", "llm_config", "thinker_config", "attn_config", "ffn_config", "moe", "moe_config",
)  # fmt: skip
_UNGATED = ("relu2", "relu", "relu_squared", "squared_relu")
_KINDS = {
    "full_attention": "full", "attention": "full", "full": "full", "*": "full", "1": "full", "deepseek_sparse_attention": "full",
    "sliding_attention": "window", "chunked_attention": "chunk", "linear_attention": "linear", "mamba": "mamba", "M": "mamba",
    "0": "lightning",
    "moe": "experts", "E": "experts", "mlp": "dense", "-": "dense",
}  # fmt: skip
"""Names of layers in files -> an attention, or a feed-forward block that is a layer of its own."""


def load(path: str | Path) -> Document:
    """Read a publisher's configuration as a model document, each key with the place of what it was read from.

    InputError with every key that is missing, that contradicts another, or that cannot be modelled, and its
    meaning.
    """
    path = Path(path)
    # JSON has no tab but between its parts, where YAML has none.
    text = files.text(path, _WANTED, most=limits.YAML_BYTES).replace("\t", " ")
    read = _Configuration(documents.loads(text, str(path)), path)
    beside = path.with_name(f"{path.name.removesuffix('config.json')}hf_quant_config.json")
    if "quantization" not in read.given and path.name.endswith("config.json") and beside.is_file():
        more = documents.loads(files.text(beside, _WANTED, most=limits.YAML_BYTES), str(beside)).tree
        read.given["quantization"] = (), more.get("quantization")
    return read.model()


class _Configuration:
    """One file while it is read: its keys by meaning, and all problems found in it."""

    def __init__(self, document: Document, path: Path) -> None:
        self.document, self.path = document, path
        self.problems: list[Problem] = []
        self.given: dict[str, tuple[documents.Path_, Any]] = {}
        self.media: list[str] = []
        self.noted: set[str] = set()
        for at, tree in self._trees(document.tree, ()):
            self._scan(tree, at)

    def _trees(
        self, tree: dict[str, Any], at: documents.Path_
    ) -> Iterator[tuple[documents.Path_, dict[str, Any]]]:
        """The mappings that hold keys of the text model, the innermost first."""
        for key in _NESTED:
            if isinstance(tree.get(key), dict) and len(at) < 2:
                yield from self._trees(tree[key], (*at, key))
        yield at, tree

    def _scan(self, tree: dict[str, Any], at: documents.Path_) -> None:
        meaning = {name: meant for meant, names in SYNONYMS.items() for name in names}
        for key, value in tree.items():
            place = (*at, key)
            if value and key in NOTES:
                self.noted.add(key)
            if key in ("vision_config", "audio_config", "talker_config"):
                self.media.append(key.removesuffix("_config"))
            means = FAMILIES.get(str(value)) if key == "model_type" else value and REFUSED.get(key)
            if means:
                got = f"'{value}'" if key == "model_type" else f"'{key}'"
                self._problem(place, got, f"a model without it: it means {means}, which is not modelled")
            elif key in meaning:
                name = meaning[key]
                if value is None or value == [] or (name in self.given and self._first(name, key)):
                    continue
                self.given[name] = place, value if name in BY_LAYER else one_number(value)
            elif key in INNER and isinstance(value, dict):
                for inner, name in INNER[key].items():
                    if inner in value:
                        self.given[name] = (*place, inner), value[inner]
            elif key not in (*REFUSED, *_NESTED) and is_unknown(key, value):
                wanted = "a known key: this one may change the model's shape; set the model in YAML, or leave the key out"
                self._problem(place, f"the unknown key '{key}'", wanted)

    def _first(self, name: str, key: str) -> bool:
        """True where an earlier synonym, or an inner mapping, has given the same."""
        names, before = SYNONYMS[name], str(self.given[name][0][-1])
        return before not in names or names.index(before) <= names.index(key)

    def _problem(self, place: documents.Path_, got: str, wanted: str) -> None:
        self.problems.append(self.document.problem(place, got, wanted, key=True))

    # --- values -----------------------------------------------------------------------------------------------

    def value(self, name: str) -> Any:
        """The value that the file gives, or None."""
        return self.given[name][1] if name in self.given else None

    @property
    def family(self) -> str:
        """The file's `model_type`."""
        return str(self.document.get(("model_type",)))

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number; a problem where there is none, and no default."""
        value = self.value(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**9:
            place = self.given[name][0] if name in self.given else ()
            wanted = "a whole number" if place else f"the key {' or '.join(SYNONYMS[name])}"
            got = repr(value) if place else "nothing"
            problem = self.document.problem(place, got, wanted)
            if problem not in self.problems:
                self.problems.append(problem)
            return 1
        return value

    # --- layers -----------------------------------------------------------------------------------------------

    def _layer_kinds(self, n: int) -> list[tuple[str, str]]:
        """Attention and feed-forward block of each layer, by name."""
        blocks, types = self._blocks(n), self.value("layer_types")
        if isinstance(types, str):
            types = list(types.replace("|", ""))
        if isinstance(types, str | list):
            kinds = [_KINDS.get(str(kind), str(kind)) for kind in types]
            kinds = kinds[:n] if len(kinds) == n + self.number("mtp", 0) else kinds  # some list MTP's too
            unknown = sorted(set(kinds) - set(_KINDS.values()))
            if unknown or len(kinds) != n:
                got = ", ".join(map(repr, unknown)) or f"{len(kinds)} kinds"
                wanted = f"{n} layers of kinds that are known: {', '.join(_KINDS)}"
                self._problem(self.given["layer_types"][0], got, wanted)
                kinds = ["full"] * n
            if {"experts", "dense"} & set(kinds):  # every block is a layer of its own
                if not self.value("experts"):
                    kinds = ["experts" if k == "dense" else k for k in kinds]  # one, which is the dense block
                return [("none", k) if k in ("experts", "dense") else (k, "none") for k in kinds]
        else:
            kinds = self._attentions(n)
        shared = self.value("index_types")
        if isinstance(shared, list) and len(shared) == n:  # an earlier layer's choice, in MLA
            kinds = ["reuse" if word == "shared" else kind for kind, word in zip(kinds, shared, strict=True)]
        return list(zip(kinds, blocks, strict=True))

    def _attentions(self, n: int) -> list[str]:
        """Attention of each layer where no key lists them."""
        listed = self.value("window_layers")
        if isinstance(listed, list) and len(listed) == n:
            return ["window" if kind == 1 else "full" for kind in listed]
        if isinstance(counted := self.value("full_counted"), list):  # from 1
            return ["full" if i + 1 in counted else "kda" for i in range(n)]
        if isinstance(full := self.value("full_layers"), list) and self.value("mamba_heads"):
            return ["full" if i in full else "mamba" for i in range(n)]
        if isinstance(group := self.value("lightning_group"), int) and group > 1:  # what is left over is full
            return [
                "full" if (i + 1) % group == 0 or i >= n // group * group else "lightning" for i in range(n)
            ]
        interval = self.value("full_interval")
        if interval and self.value("linear_value_heads"):
            return ["full" if (i + 1) % interval == 0 else "linear" for i in range(n)]
        if self.value("chunk"):
            rope = self.value("full_without_rope")
            if isinstance(rope, list) and len(rope) == n and len(set(rope)) > 1:
                return ["chunk" if flag else "full" for flag in rope]
            return ["full" if (i + 1) % 4 == 0 else "chunk" for i in range(n)]
        if self.value("window") and self.value("use_window") is not False:
            every = self.value("window_pattern")
            if isinstance(every, int) and every > 0:
                return ["full" if (i + 1) % every == 0 else "window" for i in range(n)]
            first = self.value("max_window_layers") if self.value("use_window") else 0
            return ["window" if i >= (first or 0) else "full" for i in range(n)]
        return ["full"] * n

    def _blocks(self, n: int) -> list[str]:
        """Feed-forward block of each layer, by the rules of all families."""
        if not self.value("experts"):
            return ["experts"] * n  # one, which is the dense block
        first, every = self.number("first_dense", 0), max(1, self.number("every", 1))
        offset = self.number("offset", every - 1)
        last = self.value("last_expert")
        last = n - 1 if not isinstance(last, int) or last < 0 else last
        experts = [first <= i <= last and i % every == offset % every for i in range(n)]
        rule, listed = self.value("expert_layers"), self.value("listed_experts")
        if isinstance(rule, list) and len(rule) == n:
            experts = [kind in (1, "sparse", "moe", "experts") for kind in rule]
        elif isinstance(rule, int) and rule > 1:
            experts = [on and i % rule == 0 for i, on in enumerate(experts)]
        if isinstance(listed, str):
            listed = [int(word) for word in listed.split(",") if word.strip().isdecimal()]
        if isinstance(listed, list):
            experts = [i in listed for i in range(n)]
        dense = self.value("listed_dense")
        if isinstance(dense, list):
            experts = [on and i not in dense for i, on in enumerate(experts)]
        return ["experts" if on else "dense" for on in experts]

    # --- the model --------------------------------------------------------------------------------------------

    def model(self) -> Document:
        """The model document; raises `InputError` with all problems."""
        tree: dict[str, Any] = {"name": name_of(self.path), "source": self._source()}
        start = Mark(str(self.path), 1, 1)
        if not {"hidden", "layers", "layer_types"} & set(self.given):
            raise InputError(Problem(start, "", "no key of a model's shape", _WANTED))
        types = self.value("layer_types")
        n = self.number("layers", len(types) if isinstance(types, str | list) else None)
        if n > shape.MOST_LAYERS:
            most = f"at most {shape.MOST_LAYERS} layers"
            raise InputError(self.document.problem(self.given["layers"][0], str(n), most))
        layers = self._layer_kinds(n)
        if zero := self.number("zero_experts", 0):
            n, layers = 2 * n, [("full", block) for _ in layers for block in ("experts", "dense")]
            tree["source"] += f"; {SHORTCUT}"
        tree |= {"num_layers": n, "hidden": self.number("hidden"), **self._layers(layers)}
        tree |= self._experts([block for _, block in layers], zero)
        tree["vocab"] = self.number("vocab")
        tree |= {"num_mtp_layers": mtp} if (mtp := self.number("mtp", 0)) else {}
        tree |= {"tied_embeddings": True} if self.value("tied") else {}
        tree |= self._weights(n)
        if self.problems:
            raise InputError(dict.fromkeys(self.problems))
        return self._marked(tree, start)

    def _layers(self, layers: list[tuple[str, str]]) -> dict[str, Any]:
        """Keys that say which layer is which: the short ones where they can, else a pattern."""
        kinds = list(dict.fromkeys(layers))
        mixed = {attention for attention, _ in kinds if attention != "none"}
        main = "full" if "full" in mixed else min(mixed, default="full")
        tree: dict[str, Any] = {"attention": described(attention(self, main))}
        num_dense = sum(block == "dense" for _, block in layers)
        leading = all(
            block == ("dense" if i < num_dense else "experts") for i, (_, block) in enumerate(layers)
        )
        if len(mixed) == 1 and leading and all(attention != "none" for attention, _ in kinds):
            return {**tree, **({"num_dense_layers": num_dense} if num_dense else {})}
        named = dict(zip(kinds, letters(kinds), strict=True))
        tree["layer_kinds"] = [
            {
                "letter": named[kind],
                **(
                    {}
                    if kind[0] == main
                    else {"attention": "none" if kind[0] == "none" else described(attention(self, kind[0]))}
                ),
                **({} if kind[1] == "experts" else {"mlp": kind[1]}),
            }
            for kind in kinds
        ]
        return {**tree, "pattern": shape.pattern_of("".join(named[kind] for kind in layers))}

    def _experts(self, blocks: list[str], zero: int) -> dict[str, Any]:
        hidden_width = self.number("width", 0)
        tree: dict[str, Any] = {"gated_mlp": False} if self.value("activation") in _UNGATED else {}
        if not self.value("experts"):
            return tree | {"num_experts": 1, "top_k": 1, "expert_hidden": self.number("width")}
        tree["num_experts"], tree["top_k"] = self.number("experts"), self.number("top_k")
        if zero:
            real = tree["num_experts"] / max(1, tree["num_experts"] + zero)
            tree |= {"num_zero_experts": zero, "top_k": max(1, round(tree["top_k"] * real))}
        groups, kept = self.number("groups", 1), self.number("top_groups", 1)
        if groups > 1 and kept > 0:
            tree |= {"num_groups": groups, "top_groups": kept}
            if self.value("group_method") == "group_limited_greedy":
                tree["group_score"] = "max"
        width = self.number("expert_width", hidden_width or None)
        tree["expert_hidden"] = width
        shared, shared_width = self.number("shared", 0), self.number("shared_width", 0)
        if shared_width and shared_width == shared * width:
            shared_width = 0
        if beside := self.value("block_beside"):
            arctic = (
                self.given["block_beside"][0][-1] == "parallel_attn_mlp_res"
            )  # as wide as the residual stream
            shared_width += bool(beside) * (self.number("hidden") if arctic else hidden_width)
        if shared_width or zero:
            tree["shared_hidden"] = shared_width or hidden_width
        elif shared:
            tree["num_shared_experts"] = shared
        elif self.family == "llama4":
            tree["num_shared_experts"] = 1
        if self.value("latent"):
            tree["expert_latent"] = self.number("latent")
        if "dense" in blocks:
            tree["dense_hidden"] = self.number("dense_width", self.number("width"))
        return tree

    def _weights(self, n: int) -> dict[str, Any]:
        """Formats of the weights by part, where the file states that they are quantised."""
        if not isinstance(block := self.value("quantization"), dict):
            return {}
        try:
            return {"weights": part_formats(block, n, bool(self.value("experts")))}
        except ValueError as error:
            wanted = "a format that is known: fp8, mxfp4, nvfp4, int4 in groups of 32 or 128, int8; or leave the block out"
            self._problem(self.given["quantization"][0], str(error), wanted)
            return {}

    def _source(self) -> str:
        words = [self.path.name]
        names = self.document.get(("architectures",))
        if isinstance(names, list) and names:
            words.append(f"of {names[0]}")
        if self.media:
            words.append(f"(text model alone, without its {' and '.join(self.media)} part)")
        words += [f"; {note}" for key, note in NOTES.items() if key in self.noted]
        if format_ := weights_in_words(self.value("quantization")):
            words.append(f"; weights published in {format_}")
        return " ".join(words).replace(" ;", ";")

    def _marked(self, tree: dict[str, Any], start: Mark) -> Document:
        """The tree with a place in the file for each key: that of what it was read from, where one key says it."""
        meant = {
            "num_layers": "layers", "hidden": "hidden", "vocab": "vocab", "num_experts": "experts", "top_k": "top_k",
            "num_groups": "groups", "top_groups": "top_groups", "attention": "heads", "num_mtp_layers": "mtp",
            "num_dense_layers": "first_dense", "pattern": "layer_types",
        }  # fmt: skip
        document = Document(tree, str(self.path), {}, {(): start}, self.path.resolve().parent)
        for key in tree:
            place = self.given.get(meant.get(key, key), ((), None))[0]
            document.keys[key,] = document.values[key,] = self.document.mark(place)
        return document
