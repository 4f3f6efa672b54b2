"""Likeness of a text to those that a model was trained on, by a trigram model of tokens.

The policy itself cannot say: it learns solutions, and what likelihood it gives to a question means nothing.
"""

from __future__ import annotations

import collections
import io
import zipfile
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from ttcjax.runtime.files import write_bytes

_ORDER = 3


class Familiar:
    """Counts of token runs in training texts, and what likelihoods validation texts have under them."""

    def __init__(self, counts: Sequence[dict[tuple[int, ...], int]], vocab_size: int, known: np.ndarray):
        """Take counts as they are.

        Args:
            counts: For each length from 1 to 3 how often each run of so many tokens stands in the training texts.
            vocab_size: Of the tokenizer.
            known: Likelihoods of validation texts, rising.
        """
        self._counts, self._vocab_size, self.known = counts, vocab_size, known
        self._after = [collections.Counter[tuple[int, ...]]() for _ in counts]
        self._kinds = [collections.Counter[tuple[int, ...]]() for _ in counts]
        for n, runs in enumerate(counts):
            for run, count in runs.items():
                self._after[n][run[:-1]] += count
                self._kinds[n][run[:-1]] += 1

    @classmethod
    def fit(cls, train: Iterable[Sequence[int]], valid: Iterable[Sequence[int]], vocab_size: int) -> Familiar:
        """Return the model of some texts in tokens, with the likelihoods of others of the same kind."""
        counts: list[collections.Counter[tuple[int, ...]]] = [collections.Counter() for _ in range(_ORDER)]
        for tokens in train:
            padded = [-1] * (_ORDER - 1) + list(tokens)
            for place in range(_ORDER - 1, len(padded)):
                for n in range(_ORDER):
                    counts[n][tuple(padded[place - n : place + 1])] += 1
        model = cls(counts, vocab_size, np.zeros(0))
        model.known = np.sort([model.likelihood(tokens) for tokens in valid])
        return model

    def likelihood(self, tokens: Sequence[int]) -> float:
        """Return the mean log-probability of the tokens, in nats.

        Each is interpolated from runs of one to three tokens and an even distribution, by Witten and Bell's weights:
        the more kinds of tokens have followed what came before, the more goes to the shorter run.
        """
        padded = [-1] * (_ORDER - 1) + list(tokens)
        total = 0.0
        for place in range(_ORDER - 1, len(padded)):
            p = 1.0 / self._vocab_size
            for n in range(_ORDER):
                run = tuple(padded[place - n : place + 1])
                after, kinds = self._after[n][run[:-1]], self._kinds[n][run[:-1]]
                if after:
                    p = (self._counts[n].get(run, 0) + kinds * p) / (after + kinds)
            total += float(np.log(p))
        return total / max(1, len(tokens))

    def is_strange(self, tokens: Sequence[int]) -> bool:
        """Return whether a text is less likely than every validation text.

        Of texts like those one in their number plus 1 is called strange by chance.
        """
        return len(self.known) > 0 and self.likelihood(tokens) < float(self.known[0])

    def save(self, path: epath.PathLike) -> None:
        """Write the model to `path`."""
        arrays = {"vocab_size": np.array(self._vocab_size), "known": self.known}
        for n, runs in enumerate(self._counts, 1):
            arrays[f"runs{n}"] = np.array(list(runs), np.int32).reshape(-1, n)
            arrays[f"counts{n}"] = np.array(list(runs.values()), np.int32)
        sink = io.BytesIO()
        np.savez_compressed(sink, **arrays)  # type: ignore[arg-type]
        write_bytes(path, sink.getvalue())

    @classmethod
    def read(cls, content: bytes) -> Familiar:
        """Return the model of a file that `save` wrote.

        Raises:
            ValueError: It is another file.
        """
        try:
            return cls._read(content)
        except (KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"no counts of token runs: {error}") from error

    @classmethod
    def _read(cls, content: bytes) -> Familiar:
        with np.load(io.BytesIO(content)) as found:
            counts = [
                dict(zip(map(tuple, found[f"runs{n}"].tolist()), found[f"counts{n}"].tolist(), strict=True))
                for n in range(1, _ORDER + 1)
            ]
            return cls(counts, int(found["vocab_size"]), found["known"])
