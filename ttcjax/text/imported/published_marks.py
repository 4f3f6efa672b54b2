"""Marks of a published tokenizer, as the files beside it say: begin, end, padding, ends of turns, the chat template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ttcjax.runtime.errors import UserError
from ttcjax.text.imported.chat import ChatTemplate

NAMES = ("bos", "eos", "pad", "unk")
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|eom_id|>", "<|end|>", "<|end_of_turn|>", "<|endofturn|>")
"""Marks that end a turn. Where the chat template writes one it ends a solution too, said elsewhere or not."""
TURN_BEGINS = ("<|im_start|>", "<start_of_turn>", "<|start_header_id|>", "<|end_header_id|>")


@dataclass(frozen=True)
class PublishedMarks:
    """Marks by their texts, and what is done with them, as far as the files say."""

    named: Mapping[str, str] = field(default_factory=dict)
    """Text of the marks `bos`, `eos`, `pad` and `unk`, of those that there are."""
    add_bos: bool | None = None
    """Whether a sequence begins with `bos`; `None` where the files leave that to the tokenizer."""
    special: Mapping[int, str] = field(default_factory=dict)
    """Text of further special tokens by their ids."""
    added: Mapping[int, str] = field(default_factory=dict)
    """Text of added tokens that are no special ones, by their ids."""
    stop_ids: tuple[int, ...] = ()
    """Ids that generation is to stop at."""
    template: str | None = None
    """The chat template."""

    @classmethod
    def of_files(
        cls, config: Mapping[str, Any], special: Mapping[str, Any], generation: Mapping[str, Any]
    ) -> PublishedMarks:
        """Return what the tables of some files say.

        Args:
            config: `tokenizer_config.json`, its `chat_template` that of `chat_template.jinja` where there is one.
            special: `special_tokens_map.json`.
            generation: `generation_config.json`, or `config.json` where that is not there.

        Raises:
            UserError: A field has a value of another kind.
        """
        named = {}
        for name in NAMES:
            token = config.get(f"{name}_token", special.get(f"{name}_token"))
            token = token.get("content") if isinstance(token, Mapping) else token
            if isinstance(token, str):
                named[name] = token
        tokens: dict[bool, dict[int, str]] = {True: {}, False: {}}
        for key, token in _table(config.get("added_tokens_decoder"), "added_tokens_decoder").items():
            if not str(key).isdecimal() or not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
                raise UserError(f"added_tokens_decoder of tokenizer_config.json says of {key!r} what is no token")
            tokens[bool(token.get("special", False))][int(key)] = token["content"]
        add_bos = config.get("add_bos_token")
        return cls(
            named=named,
            add_bos=add_bos if isinstance(add_bos, bool) else None,
            special=tokens[True],
            added=tokens[False],
            stop_ids=_ids(generation.get("eos_token_id")),
            template=_template(config.get("chat_template")),
        )

    def stops(self, marks: Mapping[str, int]) -> tuple[int, ...]:
        """Return the ids that end a solution, the end mark first.

        Args:
            marks: Id of each mark by its text.
        """
        ids = [marks[self.named["eos"]]] if self.named.get("eos") in marks else []
        turns = [marks[text] for text in TURN_ENDS if text in marks and self.template and text in self.template]
        return tuple(dict.fromkeys([*ids, *self.stop_ids, *turns]))

    def chat(self) -> ChatTemplate | None:
        """Return the chat template with the marks that it may name."""
        if self.template is None:
            return None
        return ChatTemplate(self.template, tuple((f"{name}_token", self.named.get(name, "")) for name in NAMES))

    def as_config(self) -> dict[str, Any]:
        """Return the table of a `tokenizer_config.json` that says the same."""
        kept = {f"{name}_token": text for name, text in self.named.items()}
        decoder = {
            str(i): {"content": text, "special": special}
            for special, texts in ((True, self.special), (False, self.added))
            for i, text in texts.items()
        }
        told = {"add_bos_token": self.add_bos, "chat_template": self.template, "added_tokens_decoder": decoder or None}
        return kept | {name: value for name, value in told.items() if value is not None}


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{name} of tokenizer_config.json is no table")
    return value or {}


def _ids(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(i for i in values if isinstance(i, int) and not isinstance(i, bool))


def _template(value: Any) -> str | None:
    """Return the template of a field; of several by name the one called `default`."""
    if isinstance(value, str):
        return value
    named: Iterable[Any] = value if isinstance(value, list) else ()
    texts = {row.get("name"): row.get("template") for row in named if isinstance(row, Mapping)}
    if isinstance(value, Mapping):
        texts = dict(value)
    found = texts.get("default")
    return found if isinstance(found, str) else None
