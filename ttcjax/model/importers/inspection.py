"""What a model is, told from its files without reading its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ttcjax.config import ModelConfig, from_dict
from ttcjax.model import params
from ttcjax.model.importers import companions
from ttcjax.model.importers.published import Place, open_published
from ttcjax.runtime.checkpoint import read_metadata

_CONTEXT = 4096
"""Tokens of the cache that is told of, where the model reads so many."""


@dataclass(frozen=True)
class Inspected:
    """Facts on a model, each a name and a text, and what keeps it from being used."""

    facts: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]
    """What keeps it from being loaded."""
    missing: tuple[str, ...]
    """What it lacks otherwise."""


def inspect(where: Place) -> Inspected:
    """Return what a published model is.

    Raises:
        UserError: It cannot be opened; see `ttcjax.model.importers.published.open_published`.
    """
    model = open_published(where)
    config, beside = model.config, companions.find(model)
    stored = ", ".join(f"{count} {kind}" for kind, count in sorted(model.tensors.dtypes().items()))
    facts = [
        ("model", str(where)),
        ("family", model.family.name),
        *shape(config),
        ("stored", f"{len(model.tensors.shapes)} tensors: {stored}"),
        ("tokenizer", beside.tokenizer or "none"),
        ("template", beside.template or "none"),
    ]
    found = (("tokenizer", beside.tokenizer), ("chat template", beside.template))
    return Inspected(tuple(facts), model.matched.faults, tuple(name for name, there in found if there is None))


def inspect_own(where: Place) -> Inspected:
    """Return what a model is that this library has written.

    Raises:
        UserError: It is missing or damaged.
    """
    metadata, shapes = read_metadata(where.path)
    config = from_dict(ModelConfig, metadata["model"])
    head = "with a value head" if "value/w" in shapes else "with a vocabulary head"
    return Inspected(
        (
            ("model", str(where)),
            ("kind", f"{metadata['kind']}, of {metadata.get('source', 'this library')}"),
            *shape(config),
            ("stored", f"{len(shapes)} arrays, {head}"),
            ("tokenizer", metadata.get("tokenizer") or "not known"),
        ),
        (),
        (),
    )


def shape(config: ModelConfig) -> list[tuple[str, str]]:
    """Return facts on a model's shape, its parameters and the memory that they and the cache take."""
    count = params.count(params.abstract(config))
    widths = (
        f"{config.num_layers} layers, width {config.d_model}, MLP {config.d_ff}, {config.num_heads} heads of "
        f"{config.head_dim}, {config.num_kv_heads} for keys and values"
    )
    local = sum(map(config.is_local, range(config.num_layers)))
    tokens = min(_CONTEXT, config.max_seq_len)
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * tokens
    facts = [
        ("shape", widths),
        (
            "vocabulary",
            f"{config.vocab_size:,}, {'tied' if config.tie_embeddings else 'not tied'} to the head",
        ),
        ("context", f"{config.max_seq_len:,} tokens, rotary base {config.rope_theta:g}{_stretch(config)}"),
    ]
    if local:
        facts.append(("windows", f"{config.sliding_window:,} tokens in {local} of {config.num_layers} layers"))
    facts += [
        ("parameters", f"{count:,}"),
        ("memory", f"{_bytes(4 * count)} in float32, {_bytes(2 * count)} in bfloat16"),
        ("cache", f"{_bytes(4 * cache)} in float32, {_bytes(2 * cache)} in bfloat16, a row of {tokens:,} tokens"),
    ]
    return facts


def _stretch(config: ModelConfig) -> str:
    scaling = config.rope_scaling
    return "" if scaling.kind == "none" else f", stretched ({scaling.kind}, factor {scaling.factor:g})"


def _bytes(count: int) -> str:
    power = min(3, max(1, int(math.log(max(count, 1), 1000))))
    return f"{count / 1000**power:.3g} {' kMG'[power].strip()}B"
