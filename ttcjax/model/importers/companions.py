"""What lies beside a model's weights: its tokenizer, its chat template, and the files that hold them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ttcjax.model.importers.gguf_file import Listed
from ttcjax.model.importers.published import Place, Published
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_there
from ttcjax.text import tokenizer as tokenizers
from ttcjax.text.imported import load_tokenizer
from ttcjax.text.tokenizer import Tokenizer

_TOKENIZERS = ("tokenizer.json", tokenizers.FILE)
_PUBLISHED = ("tokenizer.json", "tokenizer_config.json")
"""One of these lies beside the SentencePiece model of another maker, none beside one that this library trained."""
FILES = (
    *_TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)
"""Files beside the weights that a conversion takes along."""


@dataclass(frozen=True)
class Companions:
    """Files found beside a model, as text for people; `None` where there is nothing."""

    tokenizer: str | None
    template: str | None


def find(model: Published) -> Companions:
    """Look at what lies beside a model's weights, without reading a tokenizer."""
    return _of_metadata(model) if model.place.kind == "gguf" else _of_folder(model)


def _of_metadata(model: Published) -> Companions:
    told = model.metadata
    tokens, kind = told.get("tokenizer.ggml.tokens"), told.get("tokenizer.ggml.model")
    name = None
    if isinstance(tokens, Listed):
        marks = [f"{mark} {told[key]}" for mark in ("bos", "eos") if (key := f"tokenizer.ggml.{mark}_token_id") in told]
        name = f"{kind} in the GGUF metadata, {tokens.count:,} tokens, {', '.join(marks) or 'no marks'}"
    template = told.get("tokenizer.chat_template")
    return Companions(name, None if template is None else f"in the GGUF metadata, {len(template):,} characters")


def _of_folder(model: Published) -> Companions:
    folder = model.place.path
    names = [name for name in _TOKENIZERS if is_there(folder / name)]
    template = None
    if is_there(folder / "chat_template.jinja"):
        template = "chat_template.jinja"
    elif is_there(folder / "tokenizer_config.json") and _table(folder / "tokenizer_config.json").get("chat_template"):
        template = "in tokenizer_config.json"
    return Companions(" and ".join(names) or None, template)


def _table(path: Any) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): copy it again") from error
    return found if isinstance(found, dict) else {}


def tokenizer(place: Place) -> Tokenizer:
    """Return the tokenizer that lies beside a model, or in its GGUF file; see `ttcjax.text.imported.load_tokenizer`.

    Raises:
        UserError: There is none, or of a kind that is not read.
    """
    own = place.path / tokenizers.FILE
    published = place.kind == "gguf" or any(is_there(place.path / name) for name in _PUBLISHED)
    return tokenizers.load(own) if is_there(own) and not published else load_tokenizer(place.path)
