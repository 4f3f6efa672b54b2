"""The tokenizer of a `tokenizer.json`, read by the library `tokenizers`: byte-level BPE, BPE with U+2581, Unigram."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

from etils import epath

from ttcjax.runtime.errors import UserError
from ttcjax.text.imported.published_marks import PublishedMarks
from ttcjax.text.imported.published_tokenizer import PublishedTokenizer
from ttcjax.text.tokenizer import joined, without_surrogates

FILE = "tokenizer.json"

_SPACE_MARK = "\u2581"
_REPLACEMENT = "\ufffd"
_OWN = "\ufdd0"  # A noncharacter: begins what stands for a mark inside the library.
_CHANGING = {"NFC", "NFD", "NFKC", "NFKD", "Precompiled", "Strip", "Prepend"}
"""Normalizers that a text which goes on is not put through: what a model writes is to come back as it was."""


class JsonTokenizer(PublishedTokenizer):
    """A tokenizer that `tokenizers` runs; the ids of a prompt are those that the library gives.

    No text is read as a mark: inside the library marks have names that no text can have. Tokens that were added to a
    vocabulary and are no special ones are text, and found in a text as the library finds them.

    Args:
        content: The table of a `tokenizer.json`.
        published: What the files beside it say of marks.

    Raises:
        UserError: The library cannot read it, or it names no end mark.
    """

    def __init__(self, content: Mapping[str, Any], published: PublishedMarks | None = None):
        self._published = PublishedMarks() if published is None else published
        table, self._marks = _completed(content, self._published)
        self._content = table
        begin = _marks_before(table)
        own = _renamed(table, self._marks)
        self._start = _built(own)
        going_on = _as_going_on(own)
        same = all(own.get(part) == going_on.get(part) for part in ("normalizer", "pre_tokenizer"))
        self._within = self._start if same else _built(going_on)
        by_id = {i: text for text, i in self._marks.items()}
        named = {name: self._marks.get(text) for name, text in self._published.named.items()}
        self._bos, self._pad = named.get("bos"), named.get("pad")
        if self._published.add_bos is not None:
            begin = (self._bos,) if self._published.add_bos and self._bos is not None else ()
        self._begin = begin
        if self._bos is None and begin:
            self._bos = begin[0]
        self._stops = self._published.stops(self._marks)
        if not self._stops:
            raise UserError(
                "the tokenizer names no end mark: put the model's tokenizer_config.json or generation_config.json "
                "beside it"
            )
        self._unk = _unknown(table)
        self._bytes = _pieces(table, by_id, self._unk)
        self._require_stops()
        what = json.dumps([table, begin], sort_keys=True, ensure_ascii=True)
        self._fingerprint = hashlib.sha256(what.encode()).hexdigest()[:16]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        return [one.ids for one in self._within.encode_batch([_plain(t) for t in texts], add_special_tokens=False)]

    def encode_starts(self, rows: Sequence[Sequence[str | int]]) -> list[list[int]]:
        """Return the ids of rows of texts and marks as the library reads them, without what a post-processor adds."""
        texts = ["".join(_name(part) if isinstance(part, int) else _plain(part) for part in row) for row in rows]
        return [one.ids for one in self._start.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Return the text of `ids` without marks; bytes that are no UTF-8 become U+FFFD."""
        return joined(self._bytes, ids)

    def decode_batch(self, rows: Iterable[Iterable[SupportsIndex]]) -> list[str]:
        """Return the text of each row of ids."""
        return [self.decode(row) for row in rows]

    def save(self, folder: epath.PathLike) -> None:
        """Write the files that `load_tokenizer` reads into a folder."""
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            FILE: self._content,
            "tokenizer_config.json": self._published.as_config(),
            "generation_config.json": {"eos_token_id": list(self._stops)},
        }
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _plain(text: str) -> str:
    return without_surrogates(text).replace(_OWN, _REPLACEMENT)


def _name(mark: int) -> str:
    """Return what stands for a mark inside the library."""
    return f"{_OWN}{mark}{_OWN}"


def _built(table: Mapping[str, Any]) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError("a tokenizer.json needs the library tokenizers: pip install tokenizers") from error
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(table))
    except Exception as error:  # the library raises plain ones
        raise UserError(f"the library tokenizers cannot read this tokenizer.json: {str(error)[:200]}") from error


def _completed(content: Mapping[str, Any], published: PublishedMarks) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the table with the tokens that other files add, and the id of each special one."""
    model = content.get("model")
    if not isinstance(model, Mapping) or "vocab" not in model:
        raise UserError("it has no model with a vocabulary: take the tokenizer.json of the model")
    if model.get("type") == "WordPiece" or model.get("continuing_subword_prefix"):
        raise UserError("it is a WordPiece vocabulary, which models that write solutions do not have")
    table = dict(content)  # Vocabularies are large: what is changed is copied.
    added: list[dict[str, Any]] = [dict(token) for token in table.get("added_tokens") or []]
    known = {token["content"]: token for token in added}
    taken = {token["id"]: token["content"] for token in added}
    for special, texts in ((True, published.special), (False, published.added)):
        for i, text in texts.items():
            if taken.get(i, text) != text:
                raise UserError(
                    f"tokenizer_config.json calls id {i} {text!r} and tokenizer.json {taken[i]!r}: take the "
                    "files of one model"
                )
            if text not in known:
                flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
                known[text] = {"id": i, "content": text, "special": special, **flags}
                added.append(known[text])
            elif special:
                known[text]["special"] = True
    ids = _ids(model["vocab"])
    for text in published.named.values():
        if text in known:
            known[text]["special"] = True
        elif text in ids:
            flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
            known[text] = {"id": ids[text], "content": text, "special": True, **flags}
            added.append(known[text])
    table["added_tokens"] = sorted(added, key=lambda token: token["id"])
    table["truncation"] = table["padding"] = None
    return table, {token["content"]: token["id"] for token in table["added_tokens"] if token["special"]}


def _ids(vocab: Any) -> dict[str, int]:
    return dict(vocab) if isinstance(vocab, Mapping) else {row[0]: i for i, row in enumerate(vocab)}


def _marks_before(table: Mapping[str, Any]) -> tuple[int, ...]:
    """Return what the post-processor puts before a text."""
    if table.get("post_processor") is None:
        return ()
    whole = _built(table)
    bare, full = (whole.encode("a", add_special_tokens=add).ids for add in (False, True))
    place = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0) if bare else 0
    return tuple(full[:place])


def _renamed(table: Mapping[str, Any], marks: Mapping[str, int]) -> dict[str, Any]:
    """Return the table with marks under names that no text has, in the vocabulary too: Unigram finds pieces by text."""
    model = dict(table["model"])
    held = {text: _name(i) for text, i in marks.items()}
    if isinstance(model["vocab"], dict):
        model["vocab"] = {held.get(text, text): i for text, i in model["vocab"].items()}
    else:
        model["vocab"] = [[held.get(row[0], row[0]), *row[1:]] for row in model["vocab"]]
    merges = model.get("merges")
    if merges:
        pairs = ((merge, merge.split(" ") if isinstance(merge, str) else merge) for merge in merges)
        model["merges"] = [m for m, pair in pairs if not held.keys() & {*pair, "".join(pair)}]
    if model.get("unk_token") in held:
        model["unk_token"] = held[model["unk_token"]]
    added = [  # as text of their own, whatever the normalizer makes of it
        token | ({"content": held[token["content"]], "normalized": False} if token["content"] in held else {})
        for token in table["added_tokens"]
    ]
    return {**table, "model": model, "added_tokens": added, "post_processor": None}


def _as_going_on(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table for a text that goes on: nothing is put before it, and no letter becomes another."""
    table = {**table, "pre_tokenizer": copy.deepcopy(table.get("pre_tokenizer"))}
    kept = [step for step in _steps(table.get("normalizer"), "normalizers") if step.get("type") not in _CHANGING]
    table["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    for step in _steps(table.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Metaspace":
            step.pop("add_prefix_space", None)
            step["prepend_scheme"] = "never"
        elif step.get("type") == "ByteLevel":
            step["add_prefix_space"] = False
    return table


def _steps(part: Any, within: str) -> Iterator[dict[str, Any]]:
    """Yield the steps of a normalizer, pre-tokenizer or decoder, those of sequences one by one."""
    if isinstance(part, dict):
        if part.get("type") == "Sequence":
            for step in part.get(within, ()):
                yield from _steps(step, within)
        else:
            yield part


def _unknown(table: Mapping[str, Any]) -> int | None:
    model = table["model"]
    if isinstance(model.get("unk_id"), int):
        return model["unk_id"]
    return _ids(model["vocab"]).get(model.get("unk_token"))


def _pieces(table: Mapping[str, Any], marks: Mapping[int, str], unknown: int | None) -> tuple[bytes, ...]:
    """Return the bytes of each id: those that its piece stands for, none for marks and for ids without a token."""
    ids = _ids(table["model"]["vocab"])
    added = {token["id"]: token["content"] for token in table["added_tokens"]}
    steps = [
        step
        for part, within in (("pre_tokenizer", "pretokenizers"), ("normalizer", "normalizers"), ("decoder", "decoders"))
        for step in _steps(table.get(part), within)
    ]
    kinds = {step.get("type") for step in steps}
    letters = byte_letters() if "ByteLevel" in kinds else None
    spaced = "Metaspace" in kinds or any(_SPACE_MARK in json.dumps(s, ensure_ascii=False) for s in steps)
    fallback = bool(table["model"].get("byte_fallback")) or "ByteFallback" in kinds
    found = [b""] * (max([*ids.values(), *added]) + 1)

    def text_of(piece: str) -> bytes:
        return (piece.replace(_SPACE_MARK, " ") if spaced else piece).encode(errors="replace")

    for piece, i in ids.items():
        if letters is not None:
            # A piece that is not made of the bytes' letters is never written, and may stand there all the same.
            known = all(letter in letters for letter in piece)
            found[i] = bytes(letters[letter] for letter in piece) if known else piece.encode(errors="replace")
        elif fallback and re.fullmatch("<0x[0-9A-F]{2}>", piece):
            found[i] = bytes([int(piece[3:5], 16)])
        else:
            found[i] = text_of(piece)
    for i, piece in added.items():
        found[i] = text_of(piece)
    for i in marks:
        found[i] = b""
    if unknown is not None and letters is None:  # of bytes none is unknown
        found[unknown] = _REPLACEMENT.encode()
    return tuple(found)


@functools.cache
def byte_letters() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for (Radford et al. 2019).

    Bytes that print in Latin-1 stand for themselves, the others for the letters from U+0100 on, in their order.
    """
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in prints]
    return {chr(byte): byte for byte in prints} | {chr(256 + place): byte for place, byte in enumerate(others)}
