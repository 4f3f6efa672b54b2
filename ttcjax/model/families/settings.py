"""The `config.json` of a published model: read strictly, and what all families share of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ttcjax.config import ModelConfig, RopeScaling
from ttcjax.runtime.errors import UserError

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
}
ACTIVATION_NAMES = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu"}
"""Our names of activations, and those that are written."""
_ROPE_KINDS = {
    "default": "none",
    "linear": "linear",
    "dynamic": "dynamic",
    "llama3": "llama3",
    "yarn": "yarn",
    "longrope": "longrope",
    "su": "longrope",
}
_ROPE_KEYS = frozenset(
    [
        "rope_type",
        "type",
        "rope_theta",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
        "short_factor",
        "long_factor",
        "finetuned",
        "partial_rotary_factor",
    ]
)

_MOST_LAYERS = 10_000


class Settings:
    """The values of a `config.json` under their names, each read with the type that it must have.

    Args:
        values: The file's content.
        where: Its path, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str = "config.json"):
        self._values = values
        self.where = where
        self.read: set[str] = set()
        """Names that were asked for."""

    def error(self, what: str) -> UserError:
        """Return the error for something in the file."""
        return UserError(f"{self.where}: {what}")

    def get(self, name: str, kind: type | tuple[type, ...], default: Any = ..., what: str = "") -> Any:
        """Return a value, or the default where there is none or `null`.

        Raises:
            UserError: It has another type, or is missing and has no default.
        """
        self.read.add(name)
        value = self._values.get(name)
        if value is None:
            if default is ...:
                raise self.error(f"{name} is missing: is it the config.json of the whole model?")
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.error(f"{name} must be {what or kinds[0].__name__}, not {value!r}")
        return value

    def count(self, name: str, default: Any = ...) -> Any:
        """Return a positive integer."""
        value = self.get(name, int, default, "a whole number")
        if value is not default and not 0 < value < 2**31:
            raise self.error(f"{name} must be positive, not {value}")
        return value

    def layers(self) -> int:
        """Return `num_hidden_layers`."""
        found = self.count("num_hidden_layers")
        if found > _MOST_LAYERS:
            raise self.error(f"num_hidden_layers must be at most {_MOST_LAYERS:,}, not {found}")
        return found

    def number(self, name: str, default: Any = ...) -> Any:
        """Return a finite number as a float."""
        value = self.get(name, (int, float), default, "a number")
        if value is default:
            return value
        if not math.isfinite(value):
            raise self.error(f"{name} must be finite, not {value}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return a truth value."""
        return self.get(name, bool, default, "true or false")

    def table(self, name: str) -> Settings | None:
        """Return the settings under a name, `None` where there are none."""
        found = self.get(name, dict, None, "a table")
        return None if found is None else Settings(found, f"{self.where}: {name}")

    def over(self, defaults: Mapping[str, Any]) -> Settings:
        """Return the settings with others where there are none."""
        return Settings({**defaults, **self._values}, self.where)

    def names(self) -> list[str]:
        """Return all names of the file."""
        return list(self._values)

    def refuse(self, name: str, reason: str) -> None:
        """Raise `UserError` where a value is set to anything but null, false or an empty table."""
        self.read.add(name)
        if self._values.get(name):
            raise self.error(f"{name} is set: {reason}")


def decoder(settings: Settings, *, head_dim: int | None = None, tied: bool = False, **more: Any) -> ModelConfig:
    """Return the shape of what a file says, in the settings that all families have.

    Args:
        settings: The file.
        head_dim: Head size where the file has none; by default the width shared out among the heads.
        tied: Whether embeddings are tied where the file does not say.
        more: Further settings of the model, in place of what is read here.

    Raises:
        UserError: A setting is missing, has a wrong type, or does not fit with the others.
    """
    settings.refuse("quantization_config", "weights quantised for another program; take the float or GGUF checkpoint")
    settings.refuse("use_bidirectional_attention", "such a model embeds text and cannot write it")
    width, heads = settings.count("hidden_size"), settings.count("num_attention_heads")
    if settings.count("head_dim", None) is None and head_dim is None and width % heads:
        raise settings.error(
            f"hidden_size {width} does not divide by num_attention_heads {heads}, and head_dim is missing"
        )
    longest = settings.count("max_position_embeddings")
    if "rope_theta" not in more:
        more["rope_theta"], more["rope_scaling"] = rope(settings, longest)
        _refuse_two_ropes(settings)
    found: dict[str, Any] = {
        "vocab_size": settings.count("vocab_size"),
        "num_layers": settings.layers(),
        "d_model": width,
        "num_heads": heads,
        "num_kv_heads": settings.count("num_key_value_heads", heads),
        "head_dim": settings.count("head_dim", head_dim or width // heads),
        "d_ff": settings.count("intermediate_size"),
        "max_seq_len": longest,
        "tie_embeddings": settings.flag("tie_word_embeddings", tied),
        "norm_eps": settings.number("rms_norm_eps", 1e-6),
    }
    try:
        return ModelConfig(**{**found, **more})
    except ValueError as error:
        raise settings.error(str(error)) from error


def activation(settings: Settings, *names: str, default: str | None = None) -> Any:
    """Return the activation of the MLP, under the first of some names that is set."""
    for name in names:
        value = settings.get(name, str, None)
        if value is not None:
            if value not in _ACTIVATIONS:
                raise settings.error(f"{name} {value!r} is not known; known: {', '.join(_ACTIVATIONS)}")
            return _ACTIVATIONS[value]
    if default is None:
        raise settings.error(f"{names[0]} is missing")
    return default


def rope(settings: Settings, longest: int, default_theta: float = 10_000.0) -> tuple[float, RopeScaling]:
    """Return base and stretching of rotary positions, in the file's old form (`rope_theta`, `rope_scaling`) or its new
    one (`rope_parameters`); of a new one by kinds of layers, those of layers without a window."""
    table = settings.table("rope_parameters") or settings.table("rope_scaling") or Settings({})
    table = table.table(_GLOBAL) or table
    theta = table.number("rope_theta", settings.number("rope_theta", default_theta))
    if unknown := sorted(set(table.names()) - _ROPE_KEYS - {_LOCAL, _GLOBAL}):
        raise table.error(f"{unknown[0]} is not known, and may change what the model computes")
    for where in (table, settings):
        if where.number("partial_rotary_factor", 1.0) != 1.0:
            raise where.error("partial_rotary_factor is not 1: models that rotate a part of each head are not known")
    kind = table.get("rope_type", str, table.get("type", str, "default"))
    if kind not in _ROPE_KINDS:
        raise table.error(f"rope_type {kind!r} is not known; known: {', '.join(_ROPE_KINDS)}")
    return theta, _scaling(table, _ROPE_KINDS[kind], settings, longest)


def _refuse_two_ropes(settings: Settings) -> None:
    table = settings.get("rope_parameters", dict, {})
    kinds = [table[kind] for kind in (_GLOBAL, _LOCAL) if table.get(kind) is not None]
    if len(kinds) == 2 and kinds[0] != kinds[1]:
        raise settings.error(f"rope_parameters of {_LOCAL} differ from the others: Gemma 3 alone is known to have two")


def _scaling(table: Settings, kind: Any, settings: Settings, longest: int) -> RopeScaling:
    if kind == "none":
        return RopeScaling()
    original = settings.count(
        "original_max_position_embeddings", table.count("original_max_position_embeddings", longest)
    )
    found: dict[str, Any] = {"kind": kind}
    if kind in ("linear", "dynamic", "llama3"):
        found["factor"] = table.number("factor")
    else:  # The stretch of the whole context where none is given.
        found["factor"] = table.number("factor", max(1.0, longest / original))
        found["attention_factor"] = table.number("attention_factor", None)
    if kind != "linear":
        found["original_max_position"] = longest if kind == "dynamic" else original
    if kind == "llama3":
        found |= {name: table.number(name) for name in ("low_freq_factor", "high_freq_factor")}
    elif kind == "yarn":
        found |= {name: table.number(name, None) for name in ("beta_fast", "beta_slow")}
        found["truncate"] = table.get("truncate", bool, None)
        scales = [table.number(name, None) for name in ("mscale", "mscale_all_dim")]
        if found["attention_factor"] is None and all(scales):
            over, under = (0.1 * scale * math.log(found["factor"]) + 1.0 for scale in scales)
            found["attention_factor"] = over / under
    elif kind == "longrope":
        for name in ("short_factor", "long_factor"):
            values = table.get(name, list)
            if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
                raise table.error(f"{name} must be a list of numbers")
            found[name] = tuple(map(float, values))
    try:
        return RopeScaling(**found)
    except ValueError as error:
        raise table.error(str(error)) from error


def windows(settings: Settings, local: Sequence[bool], default: int = 4096) -> dict[str, Any]:
    """Return the settings of a model whose layers have windows or not.

    Args:
        settings: The file; its `layer_types` come before `local`.
        local: Whether each layer sees only the window, where the file does not say.
        default: Tokens of a window where the file does not say; `null` says that there is none.
    """
    layers = len(local)
    types = settings.get("layer_types", list, None)
    if types is not None:
        if len(types) != layers:
            raise settings.error(f"layer_types names {len(types)} layers, and num_hidden_layers is {layers}")
        if unknown := [kind for kind in types if kind not in (_LOCAL, _GLOBAL)]:
            raise settings.error(f"layer_types has {unknown[0]!r}; known: {_LOCAL}, {_GLOBAL}")
        local = [kind == _LOCAL for kind in types]
    window = settings.count("sliding_window", None if "sliding_window" in settings.names() else default)
    if window is None or not any(local):
        return {"sliding_window": None}
    if all(local):
        return {"sliding_window": window}
    every = list(local).index(False) + 1
    if list(local) == [bool((i + 1) % every) for i in range(layers)] and every > 1:
        return {"sliding_window": window, "global_every": every}
    return {"sliding_window": window, "local_pattern": tuple(local)}


def layer_types(config: ModelConfig) -> list[str]:
    """Return the kind of each layer in the words of `config.json`."""
    return [_LOCAL if config.is_local(i) else _GLOBAL for i in range(config.num_layers)]


def described(config: ModelConfig) -> dict[str, Any]:
    """Return what `decoder` and `rope` read, of a model."""
    found = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
    }
    if config.rope_scaling.kind != "none":
        found["rope_scaling"] = _described_rope(config.rope_scaling)
    return found


def _described_rope(scaling: RopeScaling) -> dict[str, Any]:
    by_kind = {
        "linear": (),
        "dynamic": (),
        "llama3": ("low_freq_factor", "high_freq_factor"),
        "yarn": ("attention_factor", "beta_fast", "beta_slow", "truncate"),
        "longrope": ("attention_factor", "short_factor", "long_factor"),
    }
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(scaling).items()}
    found = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind in ("llama3", "yarn", "longrope"):
        found["original_max_position_embeddings"] = scaling.original_max_position
    return found | {name: values[name] for name in by_kind[scaling.kind] if values[name] is not None}
