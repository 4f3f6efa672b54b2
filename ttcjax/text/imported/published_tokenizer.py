"""Members that the tokenizers of published models share, whichever library runs them."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

from ttcjax.runtime.errors import UserError
from ttcjax.text.imported.chat import ChatTemplate
from ttcjax.text.imported.published_marks import PublishedMarks


class PublishedTokenizer(abc.ABC):
    """Marks and vocabulary of a published tokenizer; a subclass sets the fields, and encodes."""

    _published: PublishedMarks
    _pad: int | None
    _bos: int | None
    _unk: int | None
    _begin: tuple[int, ...]
    _stops: tuple[int, ...]
    _marks: Mapping[str, int]
    _bytes: tuple[bytes, ...]
    _fingerprint: str

    def _require_stops(self) -> None:
        """Require stop ids to be ids of the vocabulary.

        Raises:
            UserError: One is none.
        """
        if outside := [i for i in self._stops if i >= len(self._bytes)]:
            raise UserError(
                f"generation is to stop at id {outside[0]}, and the tokenizer has {len(self._bytes)}: take the "
                "files of one model"
            )

    @property
    def pad_id(self) -> int | None:
        return self._pad

    @property
    def bos_id(self) -> int | None:
        return self._bos

    @property
    def begin_ids(self) -> tuple[int, ...]:
        """Begin ids: what `tokenizer_config.json` says, or else the tokenizer itself, puts before a text."""
        return self._begin

    @property
    def eos_id(self) -> int:
        return self._stops[0]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The end mark, those of `generation_config.json`, and those with which the chat template ends a turn."""
        return self._stops

    @property
    def unk_id(self) -> int | None:
        return self._unk

    @property
    def marks(self) -> Mapping[str, int]:
        """Special tokens by their texts, those that begin and end turns among them."""
        return self._marks

    @property
    def chat_template(self) -> ChatTemplate | None:
        return self._published.chat()

    @property
    def vocab_size(self) -> int:
        """Ids up to the largest, added tokens and ids that stand for nothing included."""
        return len(self._bytes)

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of what decides ids; a chat template and stop ids do not."""
        return self._fingerprint

    @property
    def pieces(self) -> tuple[bytes, ...]:
        return self._bytes

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text that goes on, with no mark and no blank in front."""
        return self.encode_batch([text])[0]

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
