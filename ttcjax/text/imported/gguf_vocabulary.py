"""The tokenizer in the metadata of a GGUF file, as the two kinds of files say the same: BPE and SentencePiece."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from etils import epath

from ttcjax.runtime.errors import UserError
from ttcjax.text.imported.json_tokenizer import JsonTokenizer
from ttcjax.text.imported.piece_tokenizer import PieceTokenizer, field
from ttcjax.text.imported.published_marks import PublishedMarks

_CONTROL, _USER_DEFINED = 3, 4
"""Kinds of tokens; GGUF has SentencePiece's numbers."""
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _after_gpt4(digits: str) -> str:
    """Return the pattern of words that follows GPT-4's, with so many digits in a word."""
    return (
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_SPLIT_DIGITS = {"type": "Digits", "individual_digits": True}
_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def _words(pattern: str) -> list[dict[str, Any]]:
    return [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}, _BYTES]


PRE = {
    "gpt-2": [_GPT2],
    "smollm": [_SPLIT_DIGITS, _GPT2],
    "qwen2": _words(_after_gpt4(r"\p{N}")),
    "llama-bpe": _words(_after_gpt4(r"\p{N}{1,3}")),
}
"""How texts are cut into words, by the name in `tokenizer.ggml.pre`."""
_WHOLE = ("llama-bpe",)
"""Vocabularies in which a word that is a token is that token, whatever merges make of it; they begin with a mark."""


def read(path: epath.PathLike) -> JsonTokenizer | PieceTokenizer:
    """Return the tokenizer of a GGUF file.

    Raises:
        UserError: The library is missing, the file is damaged, or has a tokenizer that is not read.
    """
    try:
        import gguf
    except ImportError as error:
        raise UserError("a GGUF file needs the library gguf: pip install gguf") from error
    try:
        fields = gguf.GGUFReader(str(path)).fields
        metadata = {name: value.contents() for name, value in fields.items() if name.startswith("tokenizer.")}
    except FileNotFoundError as error:
        raise UserError(f"no file {path}") from error
    except Exception as error:  # the library raises whatever its reads do
        raise UserError(f"the library gguf cannot read it ({error}), perhaps it is cut off: copy it again") from error
    return of_metadata(metadata)


def of_metadata(metadata: Mapping[str, Any]) -> JsonTokenizer | PieceTokenizer:
    """Return the tokenizer that the metadata of a GGUF file describe.

    Args:
        metadata: Its fields from `tokenizer.` on, by their whole names.

    Raises:
        UserError: They describe none, or one that is not read.
    """

    def told(name: str, otherwise: Any = None) -> Any:
        return metadata.get(f"tokenizer.ggml.{name}", otherwise)

    kind, tokens = told("model"), told("tokens")
    if not tokens:
        raise UserError("it has no tokenizer: give the folder with the model's tokenizer.json")
    kinds = told("token_type", [1] * len(tokens))
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    ids = {name: told(f"{key}_token_id") for name, key in names.items()}
    if wrong := [i for i in ids.values() if i is not None and not 0 <= i < len(tokens)]:
        raise UserError(f"it names id {wrong[0]} as a mark and has {len(tokens)} tokens: it is damaged, copy it again")
    turn = told("eot_token_id")
    published = PublishedMarks(
        named={name: tokens[i] for name, i in ids.items() if i is not None and (name != "unk" or kind == "llama")},
        add_bos=told("add_bos_token", kind == "llama" or told("pre") in _WHOLE),
        special={i: text for i, text in enumerate(tokens) if kinds[i] == _CONTROL},
        stop_ids=() if turn is None else (turn,),
        template=metadata.get("tokenizer.chat_template"),
    )
    if kind == "llama":
        return PieceTokenizer(_proto(tokens, told("scores"), kinds, ids, told("add_space_prefix", True)), published)
    if kind == "gpt2":
        pre = told("pre")
        if pre not in PRE:
            raise UserError(
                f"its texts are cut into words in the way {pre!r}, and known are {', '.join(sorted(PRE))}: give the "
                "folder with the model's tokenizer.json"
            )
        table = _table(tokens, told("merges", []), kinds, PRE[pre], normalised=pre == "qwen2", whole=pre in _WHOLE)
        return JsonTokenizer(table, published)
    raise UserError(f"it has a tokenizer of the kind {kind!r}: give the folder with the model's tokenizer.json")


def _table(
    tokens: list[str],
    merges: list[str],
    kinds: list[int],
    words: list[dict[str, Any]],
    *,
    normalised: bool,
    whole: bool,
) -> dict[str, Any]:
    """Return a `tokenizer.json` of a byte-level vocabulary."""
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    added = [
        {"id": i, "content": text, "special": kinds[i] == _CONTROL, **flags}
        for i, text in enumerate(tokens)
        if kinds[i] in (_CONTROL, _USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if normalised else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": words},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {text: i for i, text in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in merges],
            "ignore_merges": whole,
        },
    }


def _proto(
    tokens: list[str], scores: list[float] | None, kinds: list[int], ids: Mapping[str, int | None], prefix: bool
) -> bytes:
    """Return the bytes of a SentencePiece model: its pieces, its trainer's settings, its normalizer's."""
    if scores is None or len(scores) != len(tokens):
        raise UserError("its pieces have no scores: it is damaged, copy it again")
    pieces = (
        field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + field(3, int(kind)))
        for text, score, kind in zip(tokens, scores, kinds, strict=True)
    )
    bpe, model_type, byte_fallback = 2, 3, 35
    places = {"unk": 40, "bos": 41, "eos": 42, "pad": 43}
    absent = (1 << 64) - 1  # -1
    marks = b"".join(
        field(place, absent if ids[name] is None else int(ids[name] or 0)) for name, place in places.items()
    )
    trainer = field(model_type, bpe) + field(byte_fallback, 1) + marks
    normalizer = field(1, b"identity") + field(3, int(prefix)) + field(4, 0) + field(5, 1)
    return b"".join(pieces) + field(2, trainer) + field(3, normalizer)
