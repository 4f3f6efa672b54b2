"""The tokenizer of a published SentencePiece model, whatever its ids and however it treats blanks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

from etils import epath

from ttcjax.runtime.errors import UserError
from ttcjax.text import tokenizer as own
from ttcjax.text.imported.chat import mark_finder
from ttcjax.text.imported.published_marks import TURN_BEGINS, TURN_ENDS, PublishedMarks
from ttcjax.text.imported.published_tokenizer import PublishedTokenizer

# The proto of a model, field by field; what is given again at the end of its bytes counts.
_NORMALIZER, _CHARSMAP, _DUMMY_PREFIX, _EXTRA_WHITESPACES = 3, 2, 3, 4


class PieceTokenizer(PublishedTokenizer):
    """A SentencePiece model; the ids of a prompt are those that the library gives.

    A text that goes on has no blank put in front, keeps all of its blanks, and is not normalised: what a model writes
    comes back as it was, where the model has byte pieces. No text is read as a mark, those included
    that are user-defined pieces and begin or end turns.

    Args:
        model: Bytes of the model.
        published: What the files beside it say of marks.

    Raises:
        UserError: The bytes are no SentencePiece model, or it has no end mark.
    """

    def __init__(self, model: bytes, published: PublishedMarks | None = None):
        self._model = model
        self._published = published = PublishedMarks() if published is None else published
        self._start = processor = own.processor_of(model)
        self._within = own.processor_of(model + _going_on())
        size = processor.vocab_size()
        try:
            pieces = [own.piece_bytes(processor, i) for i in range(size)]
            names = [processor.id_to_piece(i) for i in range(size)]
        except ValueError as error:
            raise UserError("the SentencePiece model is damaged, a piece is no text: copy the file again") from error
        texts = {names[i]: i for i in range(size) if processor.is_control(i)}
        ids = {name: i for i, name in enumerate(names)}
        turns = (*TURN_BEGINS, *TURN_ENDS)
        texts |= {text: ids[text] for text in (*turns, *published.named.values()) if text in ids}
        texts |= {text: i for i, text in published.special.items()}
        self._unk = processor.unk_id() if processor.unk_id() >= 0 else None
        texts = {text: i for text, i in texts.items() if i != self._unk}
        added = {**published.special, **published.added}
        pieces += [b""] * (max([size - 1, *added]) + 1 - size)
        for i, text in added.items():
            if i < size and names[i] != text:
                raise UserError(
                    f"tokenizer_config.json calls id {i} {text!r} and the SentencePiece model {names[i]!r}: take the "
                    "files of one model"
                )
            pieces[i] = text.encode()
        for i in texts.values():
            pieces[i] = b""
        self._marks, self._bytes = texts, tuple(pieces)
        # The library finds pieces in a text that are no control pieces.
        self._finder = mark_finder(text for text, i in texts.items() if i < size and not processor.is_control(i))
        named = {name: texts.get(text) for name, text in published.named.items()}
        self._bos = named["bos"] if "bos" in named else _there(processor.bos_id())
        self._pad = named["pad"] if "pad" in named else _there(processor.pad_id())
        # A model trained with a begin mark reads it, unless the files say otherwise.
        begins = self._bos is not None and published.add_bos is not False
        self._begin = (self._bos,) if begins and self._bos is not None else ()
        end = _there(processor.eos_id())
        first = () if published.named.get("eos") in texts or end is None else (end,)
        self._stops = tuple(dict.fromkeys([*first, *published.stops(texts)]))
        if not self._stops:
            raise UserError("the SentencePiece model has no end mark: put the model's tokenizer_config.json beside it")
        self._require_stops()
        what = model + json.dumps([self._begin, sorted(texts.items())]).encode()
        self._fingerprint = hashlib.sha256(what).hexdigest()[:16]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        return [self._encoded(own.without_surrogates(text), start=False) for text in texts]

    def encode_starts(self, rows: Sequence[Sequence[str | int]]) -> list[list[int]]:
        """Return the ids of rows of texts and marks; the first part is read as the library reads a text."""
        found = []
        for row in rows:
            ids: list[int] = []
            for place, part in enumerate(row):
                if isinstance(part, int):
                    ids.append(part)
                else:
                    ids += self._encoded(own.without_surrogates(part), start=place == 0)
            found.append(ids)
        return found

    def _encoded(self, text: str, *, start: bool) -> list[int]:
        # What looks like a mark that the library would find is read in two halves.
        cuts = [found.start() + 1 for found in self._finder.finditer(text)] if self._finder else []
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        ids = (self._start if start else self._within).encode(parts[0], out_type=int)
        for part in parts[1:]:
            ids += self._within.encode(part, out_type=int)
        return ids

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Return the text of `ids` without marks; bytes that are no UTF-8 become U+FFFD."""
        return own.joined(self._bytes, ids)

    def decode_batch(self, rows: Iterable[Iterable[SupportsIndex]]) -> list[str]:
        """Return the text of each row of ids."""
        return [self.decode(row) for row in rows]

    def save(self, folder: epath.PathLike) -> None:
        """Write the files that `load_tokenizer` reads into a folder."""
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / own.FILE).write_bytes(self._model)
        files = {
            "tokenizer_config.json": self._published.as_config(),
            "generation_config.json": {"eos_token_id": list(self._stops)},
        }
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _there(found: int) -> int | None:
    return found if found >= 0 else None


def _going_on() -> bytes:
    """Return what to put after a model for it to add no blank, keep all blanks and leave letters alone."""
    settings = field(_CHARSMAP, b"") + field(_DUMMY_PREFIX, 0) + field(_EXTRA_WHITESPACES, 0)
    return field(_NORMALIZER, settings)


def field(number: int, value: bytes | int) -> bytes:
    """Return a field of a protocol buffer: bytes, or an integer from 0."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """Return an integer from 0 in sevens of bits, the lowest first."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
