"""Text to token ids and back without loss: the protocol, and SentencePiece trained on a data set's own text."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np
import sentencepiece
from etils import epath

from ttcjax.config import TokenizerConfig
from ttcjax.runtime import faults
from ttcjax.runtime.errors import UserError

if TYPE_CHECKING:
    from ttcjax.text.imported.chat import ChatTemplate

logger = logging.getLogger(__name__)

FILE = "tokenizer.model"
"""Path of the tokenizer in the folder of the data stage."""

PAD_ID, BOS_ID, EOS_ID, UNK_ID = 0, 1, 2, 3

_SPACE_MARK = "\u2581"  # SentencePiece's stand-in for a space inside a piece
_RESERVED_MARK = "\u2585"  # SentencePiece skips training lines that hold it
_REPLACEMENT = "\ufffd"
# Blanks in front, doubled and at the end; capitals, composed and decomposed letters, compatibility forms, controls.
_PROBE = "  A\t\u00e9 e\u0301\ufb01\u2460\u3000\u00a0\u200b\x00\r "
_SURROGATES = re.compile("[\ud800-\udfff]")
_BYTE_PIECES = 256
_LONGEST_LINE = 1 << 16  # bytes
_CONTROL_PIECES = 4


@runtime_checkable
class Tokenizer(Protocol):
    """Protocol of tokenizers, as the rest of the library uses them.

    A sequence is `ttcjax.text.prompt.encode_prompt(prompt) + encode(solution) + [eos_id]`. `encode` reads a text as one
    that goes on: it adds no marks and no blank in front, and `decode` gives the text back.
    """

    @property
    def pad_id(self) -> int | None:
        """Id that is no text, where there is one; nothing is told to be padding by it."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Id of the begin mark; `None` where the model has none."""
        ...

    @property
    def begin_ids(self) -> tuple[int, ...]:
        """Marks that a sequence begins with: the begin mark, or none where the model was trained without."""
        ...

    @property
    def eos_id(self) -> int:
        """Id that training puts after a solution: the first of `stop_ids`."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a solution where a model samples one."""
        ...

    @property
    def unk_id(self) -> int | None: ...

    @property
    def marks(self) -> Mapping[str, int]:
        """Id of each mark by what templates write for it. In a text these are letters like others."""
        ...

    @property
    def chat_template(self) -> ChatTemplate | None:
        """Template that puts a conversation as the model was trained to read it; `None` where it has none."""
        ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits; equal only where every text gets the same ids."""
        ...

    @property
    def pieces(self) -> Sequence[bytes]:
        """UTF-8 of each id, perhaps a part of a character; empty for marks. A text is what they are joined to."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...

    def encode_starts(self, rows: Sequence[Sequence[str | int]]) -> list[list[int]]:
        """Return the ids of rows that begin a sequence, each of texts and of marks by their ids.

        The ids are those that the model's own tokenizer gives, with the blank in front that some have there. None is
        added: `begin_ids` come from the caller.
        """
        ...

    def decode(self, ids: Iterable[SupportsIndex]) -> str: ...

    def decode_batch(self, rows: Iterable[Iterable[SupportsIndex]]) -> list[str]: ...


class SentencePieceTokenizer:
    """A SentencePiece model with byte fallback; `decode(encode(text)) == text` for any valid Unicode text.

    Lone surrogates, which no UTF-8 file can hold, are read as U+FFFD. Text that looks like a control mark
    (`</s>`) is text: `encode` never returns a control id.

    Args:
        model: Bytes of a serialized SentencePiece model, as written by `train`.

    Raises:
        UserError: The bytes are no SentencePiece model, or one without byte fallback, or begin and end marks, or one
            that changes text.
    """

    def __init__(self, model: bytes):
        self._model = model
        self._processor = processor_of(model)
        ids = range(self._processor.vocab_size())
        try:
            self._bytes = tuple(piece_bytes(self._processor, i) for i in ids)
        except ValueError as error:
            raise UserError("the SentencePiece model is damaged, a piece is no text: copy the file again") from error
        byte_ids = {self._bytes[i]: i for i in ids if self._processor.is_byte(i)}
        if len(byte_ids) != _BYTE_PIECES:
            raise UserError("the SentencePiece model has no byte fallback; train it with ttcjax.text.tokenizer.train")
        if min(self._processor.bos_id(), self._processor.eos_id()) < 0:
            raise UserError("the SentencePiece model lacks bos or eos; train it with ttcjax.text.tokenizer.train")
        self._fingerprint = hashlib.sha256(model).hexdigest()[:16]
        self._space_mark_ids = [byte_ids[bytes([b])] for b in _SPACE_MARK.encode()]
        self._space_byte_id = byte_ids[b" "]
        # Learned from text with hardly any blanks, a model has no piece for one.
        self._knows_space = self._processor.encode(" ", out_type=int) != self._space_mark_ids
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise UserError(
                "the SentencePiece model changes text before it encodes it (it normalises it, or adds or removes "
                "spaces); train it with ttcjax.text.tokenizer.train"
            )

    @property
    def pad_id(self) -> int | None:
        found = self._processor.pad_id()
        return found if found >= 0 else None

    @property
    def bos_id(self) -> int | None:
        return self._processor.bos_id()

    @property
    def begin_ids(self) -> tuple[int, ...]:
        """The begin mark."""
        return () if self.bos_id is None else (self.bos_id,)

    @property
    def eos_id(self) -> int:
        return self._processor.eos_id()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The end mark alone."""
        return (self.eos_id,)

    @property
    def unk_id(self) -> int | None:
        return self._processor.unk_id()

    @property
    def marks(self) -> Mapping[str, int]:
        """The control pieces."""
        pieces = range(self._processor.vocab_size())
        return {self._processor.id_to_piece(i): i for i in pieces if self._processor.is_control(i)}

    @property
    def chat_template(self) -> ChatTemplate | None:
        """None: the vocabulary was learned from plain texts."""
        return None

    @property
    def vocab_size(self) -> int:
        return len(self._bytes)

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of the model's bytes."""
        return self._fingerprint

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """UTF-8 of each id; a byte piece is one byte, a control mark none."""
        return self._bytes

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, with no begin or end mark."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, with no begin or end marks."""
        texts = list(map(without_surrogates, texts))
        rows = self._encode(texts)
        for i, text in enumerate(texts):
            if _SPACE_MARK in text:
                # SentencePiece cannot tell a typed U+2581 from a space, so the character goes in as its bytes.
                first, *rest = self._encode(text.split(_SPACE_MARK))
                rows[i] = first + [i for part in rest for i in (*self._space_mark_ids, *part)]
        return rows

    def encode_starts(self, rows: Sequence[Sequence[str | int]]) -> list[list[int]]:
        """Return the ids of rows of texts and marks; texts are encoded as anywhere else."""
        texts = self.encode_batch([part for row in rows for part in row if isinstance(part, str)])
        left = iter(texts)
        return [[i for part in row for i in ([part] if isinstance(part, int) else next(left))] for row in rows]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of texts in which U+2581 stands for a space."""
        rows = self._processor.encode(texts, out_type=int, num_threads=1)
        return rows if self._knows_space else [self._with_spaces(row) for row in rows]

    def _with_spaces(self, ids: list[int]) -> list[int]:
        """Return `ids` with a space where SentencePiece wrote the bytes of the character that it has in its place."""
        first, found, i = self._space_mark_ids[0], [], 0
        while i < len(ids):
            space = ids[i] == first and ids[i : i + 3] == self._space_mark_ids
            found.append(self._space_byte_id if space else ids[i])
            i += 3 if space else 1
        return found

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Return the text of `ids` without control marks.

        Ids outside the vocabulary (an embedding table may be padded) and bytes that are no UTF-8, both of
        which a model may sample, become U+FFFD.
        """
        return joined(self._bytes, ids)

    def decode_batch(self, rows: Iterable[Iterable[SupportsIndex]]) -> list[str]:
        """Return the text of each row of ids without control marks."""
        return [self.decode(row) for row in _plain(rows)]

    def save(self, path: epath.PathLike) -> None:
        """Write the model to `path`, replacing what is there."""
        epath.Path(path).write_bytes(self._model)


def load(path: epath.PathLike) -> SentencePieceTokenizer:
    """Read a tokenizer that `SentencePieceTokenizer.save` wrote.

    Raises:
        MachineError: The machine does not let the file be read.
        UserError: It is missing, empty, cut short or no SentencePiece model.
    """
    path = epath.Path(path)
    try:
        model = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise missing(path) from error
    except OSError as error:
        faults.raise_explained(error)
        raise
    return parse(model, path)


def missing(path: epath.PathLike) -> UserError:
    """Return the error for a tokenizer that is not there."""
    return UserError(f"no tokenizer at {path}; run the data stage first")


def parse(model: bytes, path: epath.PathLike) -> SentencePieceTokenizer:
    """Return the tokenizer of a file's bytes.

    Args:
        model: The bytes.
        path: Where they are from, for messages.

    Raises:
        UserError: They are no SentencePiece model.
    """
    path = epath.Path(path)
    try:
        return SentencePieceTokenizer(model)
    except UserError as error:
        own = f"; in a run the data stage writes it anew once {path.parent} is moved away" * (path.name == FILE)
        raise UserError(f"{path}: {error}{own}") from error


def train(texts: Iterable[str], config: TokenizerConfig) -> SentencePieceTokenizer:
    """Learn a byte-pair vocabulary from the first `config.train_lines` texts; equal input gives equal bytes.

    The newline and the integers below `config.number_pieces` are pieces of their own, matched longest first
    from the left, so that a digit never hides inside a word. Where the text is too small for
    `config.vocab_size` pieces the vocabulary is smaller.

    Args:
        texts: One string an example, prompt and solution together.
        config: Vocabulary size and kinds of pieces.

    Raises:
        UserError: There is no text, or `config.vocab_size` cannot hold the fixed pieces and the letters.
    """
    # No piece crosses a newline, so lines can be given one by one.
    examples = itertools.islice(texts, config.train_lines)
    lines = [line.replace(_RESERVED_MARK, " ") for text in examples for line in text.split("\n") if line]
    if not lines:
        raise UserError("no text to train a tokenizer on; check that the training split is not empty")
    fixed = _CONTROL_PIECES + _BYTE_PIECES + config.number_pieces + 1
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            # With full coverage every stray symbol of a large text would take a piece; bytes serve those.
            character_coverage=0.9999,
            byte_fallback=True,
            user_defined_symbols=["\n", *(str(i) for i in range(config.number_pieces))],
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=not config.merge_words,
            split_by_unicode_script=not config.merge_words,
            max_sentencepiece_length=64 if config.merge_words else 16,
            max_sentence_length=_LONGEST_LINE,
            shuffle_input_sentence=False,
            num_threads=1,
            pad_id=PAD_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            minloglevel=2,
        )
    except RuntimeError as error:
        if "sentences_.empty()" in str(error):
            raise UserError(
                f"no line of the training text can be used: lines of {_LONGEST_LINE} bytes or more, and those with "
                "nothing but line ends, are passed over; cut the text into lines"
            ) from error
        raise UserError(
            f"tokenizer.vocab_size={config.vocab_size} cannot hold {fixed} fixed pieces and the letters of the "
            f"training text; raise tokenizer.vocab_size or lower tokenizer.number_pieces"
        ) from error
    tokenizer = SentencePieceTokenizer(model.getvalue())
    if tokenizer.vocab_size < config.vocab_size:
        logger.info("tokenizer: the text yields %d of %d pieces", tokenizer.vocab_size, config.vocab_size)
    return tokenizer


def _plain(values: Iterable[Any]) -> Iterable[Any]:
    # Indexing with Python integers is several times faster than with NumPy or JAX scalars.
    return np.asarray(values).tolist() if hasattr(values, "__array__") else values


def joined(pieces: Sequence[bytes], ids: Iterable[SupportsIndex]) -> str:
    """Return the text of ids; those without a piece, and bytes that are no UTF-8, become U+FFFD."""
    size = len(pieces)
    text = b"".join([pieces[i] if 0 <= i < size else b"\xff" for i in _plain(ids)])
    return text.decode("utf-8", errors="replace")


def without_surrogates(text: str) -> str:
    """Return a text with U+FFFD for the lone surrogates, which no UTF-8 holds."""
    return _SURROGATES.sub(_REPLACEMENT, text)


def piece_bytes(processor: sentencepiece.SentencePieceProcessor, piece_id: int) -> bytes:
    """Return the bytes that a piece of a SentencePiece model stands for; none for a control mark."""
    if processor.is_control(piece_id):
        return b""
    if processor.is_unknown(piece_id):
        return _REPLACEMENT.encode()
    piece = processor.id_to_piece(piece_id)
    if processor.is_byte(piece_id):
        return bytes([int(piece[3:5], 16)])  # "<0x41>"
    return piece.replace(_SPACE_MARK, " ").encode()


def processor_of(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """Return the library's processor of a model.

    Raises:
        UserError: The bytes are no SentencePiece model.
    """
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except (RuntimeError, UnicodeDecodeError) as error:  # the latter where an error's own text is damaged
        raise UserError(f"the bytes are not a SentencePiece model but {_what(model)}") from error
    if processor.vocab_size() == 0:
        raise UserError(f"the bytes are not a SentencePiece model but {_what(model)}")
    return processor


def _what(data: bytes) -> str:
    """Return what a file is that is no SentencePiece model, as far as its bytes tell, and what to do."""
    give = "give the tokenizer.model that belongs to it"
    if not data.strip(b"\0"):
        return "zeros alone: copy the file again" if data else "none at all, the file is empty: copy it again"
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer to the file: fetch the file itself with `git lfs pull`"
    for start, kind in _KINDS.items():
        if data.startswith(start):
            return f"{kind}: {give}"
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"["):
        return f"{_json_kind(text)}, which is not read here: {give}"
    if text[:1] == b"<" and b"<html" in text[:1000].lower():
        return "a web page, perhaps an error in place of a download: download the file again"
    if re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n", text):
        return f"a tiktoken vocabulary, which is not read here: {give}"
    if data.startswith(b"\n"):  # the first field of every SentencePiece model
        return "perhaps the damaged or cut-off beginning of one: copy the file again"
    try:
        text.decode()
    except UnicodeDecodeError:
        return f"something else: {give}"
    return f"text: {give}"


_KINDS = {
    b"\x1f\x8b": "gzip-compressed data",
    b"PK\x03\x04": "a zip archive, as PyTorch's weights are",
    b"\x80": "a Python pickle",
    b"GGUF": "GGUF weights",
    b"\x89HDF": "an HDF5 file",
    b"#version": "a list of merges",
}


def _json_kind(text: bytes) -> str:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return "JSON, cut off or damaged"
    keys = set(content) if isinstance(content, dict) else set()
    if "model" in keys and keys & {"added_tokens", "pre_tokenizer", "normalizer", "decoder"}:
        return "a Hugging Face tokenizer.json"
    return "a Hugging Face tokenizer_config.json" if "tokenizer_class" in keys else "JSON"
