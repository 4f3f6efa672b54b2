"""What a revision model is shown between the question and its next answer: its last answers, the newest last.

Every answer ends with the end mark, as it was sampled. Snell et al. 2024, section 6.1: no word on whether an
answer was right, no critique, at most four answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ttcjax.text.tokenizer import Tokenizer

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class View:
    """Tokens between the question and the next answer."""

    tokens: Tokens
    answers: int
    """How many are in view."""


class Context:
    """Puts answers in view; each text is encoded once."""

    def __init__(self, tokenizer: Tokenizer, most: int = 4, *, restate: bool = False):
        """Make the rules.

        Args:
            tokenizer: Encodes answers.
            most: Most answers in view.
            restate: Put the question again after the answers (`RevisionConfig.restate`).
        """
        self.most = most
        self.restate = restate
        self.cut = 0
        """Views that show fewer answers than they might, because the others did not fit."""
        self._tokenizer = tokenizer
        self._known: dict[str, Tokens] = {}

    def encode(self, texts: Iterable[str]) -> list[Tokens]:
        """Return the tokens of each answer, its end mark included."""
        texts = list(texts)
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        for text, ids in zip(new, self._tokenizer.encode_batch(new), strict=True):
            self._known[text] = (*ids, self._tokenizer.eos_id)
        return [self._known[text] for text in texts]

    def view(self, question: Tokens, answers: Sequence[str], room: int) -> View:
        """Show the last answers: at most `most`, and only as many whole ones as `room` tokens hold.

        Args:
            question: Tokens of the prompt, without the begin mark.
            answers: All so far, the newest last.
            room: For answers, and the question again where it is restated.
        """
        shown = self.encode(answers[-self.most :])
        again = question if self.restate else ()
        total = sum(map(len, shown)) + len(again)
        while shown and total > room:
            total -= len(shown.pop(0))
        self.cut += len(shown) < min(len(answers), self.most)
        return View((*itertools.chain.from_iterable(shown), *again) if shown else (), len(shown))
