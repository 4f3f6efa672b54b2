"""From a folder or a file to a tokenizer."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from ttcjax.runtime import faults
from ttcjax.runtime.errors import UserError
from ttcjax.text import tokenizer as own
from ttcjax.text.imported import gguf_vocabulary, json_tokenizer
from ttcjax.text.imported.json_tokenizer import JsonTokenizer
from ttcjax.text.imported.piece_tokenizer import PieceTokenizer
from ttcjax.text.imported.published_marks import PublishedMarks


@faults.explained()
def load_tokenizer(path: epath.PathLike) -> JsonTokenizer | PieceTokenizer:
    """Return the tokenizer of a model: of a folder, a `tokenizer.json`, a SentencePiece model or a GGUF file.

    A folder's `tokenizer.json` comes before its `tokenizer.model`. What lies beside them is read too:
    `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` (`config.json` where that is not there)
    and `chat_template.jinja`.

    Args:
        path: A folder or a file.

    Raises:
        UserError: There is none, it is damaged, or of a kind that is not read; the message names the file and the fix.
    """
    path = epath.Path(path)
    if path.is_dir():
        found = next((path / name for name in (json_tokenizer.FILE, own.FILE) if (path / name).exists()), None)
        if found is None:
            raise UserError(f"{path} holds neither {json_tokenizer.FILE} nor {own.FILE}: copy the model's there")
        path = found
    try:
        content = path.read_bytes() if path.suffix != ".gguf" else b"GGUF"
    except FileNotFoundError as error:
        raise UserError(f"no tokenizer at {path}: name a model's folder, or its {json_tokenizer.FILE}") from error
    try:
        if content.startswith(b"GGUF"):
            return gguf_vocabulary.read(path)
        published = _published(path.parent)
        table = _json(content)
        if table is not None and "model" in table:
            return JsonTokenizer(table, published)
        return PieceTokenizer(content, published)
    except UserError as error:
        told = str(error)
        raise type(error)(told if told.startswith(str(path.parent)) else f"{path}: {told}") from error


def _json(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _published(folder: epath.Path) -> PublishedMarks:
    def table(*names: str) -> dict[str, Any]:
        for name in names:
            try:
                content = (folder / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            found = _json(content)
            if found is None:
                raise UserError(f"{folder / name}: it is no table of JSON, cut off or damaged: copy the file again")
            return found
        return {}

    config = table("tokenizer_config.json")
    template = folder / "chat_template.jinja"
    if template.exists():
        config["chat_template"] = template.read_text()
    generation = table("generation_config.json")
    if "eos_token_id" not in generation:
        generation = table("config.json")
    return PublishedMarks.of_files(config, table("special_tokens_map.json"), generation)
