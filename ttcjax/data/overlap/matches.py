"""Search for test questions in other texts: the same text, the same but for names, or long runs of the same words."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from etils import epath

from ttcjax.config import DataConfig
from ttcjax.data.overlap.question_words import words
from ttcjax.data.reading.json_rows import rows
from ttcjax.data.sets import data_set
from ttcjax.data.task import Example
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import resolve

Kind = Literal["text", "names", "numbers", "words"]
KINDS: Mapping[Kind, str] = {
    "text": "the same text",
    "names": "the same but for names",
    "numbers": "the same numbers in a question of one subject",
    "words": "runs of the same words",
}
"""What two texts have in common, the most first."""
_RANK = {kind: place for place, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Match:
    """A test question and the text that is most like it."""

    id: str
    """Of the test question."""
    question: str
    where: str
    """Id of the training question, or file and line of the text."""
    text: str
    kind: Kind
    share: float
    """Share of the question's runs of words that the text has; 1 for the same text."""


@dataclass(frozen=True)
class Found:
    """Test questions found in other texts."""

    tested: int
    """Test questions that were looked for."""
    searched: int
    """Texts they were looked for in."""
    matches: tuple[Match, ...]
    """At most one for each test question, the worst first."""

    @property
    def counts(self) -> dict[Kind, int]:
        """Matches by kind."""
        return {kind: sum(match.kind == kind for match in self.matches) for kind in KINDS}


def check(
    config: DataConfig,
    against: epath.PathLike | None = None,
    *,
    run: int = 8,
    share: float = 0.5,
    limit: int | None = None,
) -> Found:
    """Find the test questions of a data set in its training questions, or in a folder of other texts.

    Args:
        config: The data set; what its reading leaves out of training as the same as a test question is found too.
        against: Folder with JSON, JSON lines or text, in place of the training questions.
        run: Words of a run.
        share: Least share of a question's runs that makes a match; with fewer words than a run, it has to be whole.
        limit: So many test questions, the first ones.

    Raises:
        UserError: The data set or the folder cannot be read.
    """
    source = data_set(config)
    pool, tests = source.pools(config)
    tests = tests[:limit]
    if against is not None:
        return find(tests, _texts(resolve(against, "--against", kind="folder")), run=run, share=share)
    if not len(pool):
        raise UserError(f"{config.name} has no training questions here: give a folder of texts with --against")
    others = ((example.id, example.question) for example in pool)
    if tests and source.form(tests[0]) is not None:
        return _by_form(tests, pool, source.form)
    return find(tests, others, run=run, share=share)


def find(tests: Sequence[Example], others: Iterable[tuple[str, str]], *, run: int, share: float) -> Found:
    """Find test questions in texts.

    Args:
        tests: The test questions.
        others: Each text with its place.
        run: As for `check`.
        share: As for `check`.
    """
    texts, nameless = (_places(words(example.question, names=names) for example in tests) for names in (True, False))
    runs_Q = [_runs(words(example.question), run) for example in tests]
    holders = _places_of_each(runs_Q)
    best: dict[int, Match] = {}
    searched = 0

    def note(place: int, where: str, text: str, kind: Kind, part: float) -> None:
        one, known = tests[place], best.get(place)
        if known is None or (_RANK[kind], -part) < (_RANK[known.kind], -known.share):
            best[place] = Match(one.id, one.question, where, text, kind, part)

    for where, text in others:
        searched += 1
        found = words(text)
        for place in texts.get(found, ()):
            note(place, where, text, "text", 1.0)
        for place in nameless.get(words(text, names=False), ()):
            note(place, where, text, "names", 1.0)
        shared = collections.Counter(place for one in _runs(found, run) for place in holders.get(one, ()))
        for place, count in shared.items():
            if count >= share * len(runs_Q[place]):
                note(place, where, text, "words", count / len(runs_Q[place]))
    return Found(len(tests), searched, _sorted(best.values()))


def _by_form(tests: Sequence[Example], pool: Iterable[Example], form: Callable[[Example], str | None]) -> Found:
    """Find test questions by the rule of their data set."""
    places = collections.defaultdict[str | None, list[Example]](list)
    for example in tests:
        places[form(example)].append(example)
    best: dict[str, Match] = {}
    searched = 0
    for other in pool:
        searched += 1
        for one in places.get(form(other), ()):
            kind: Kind = "text" if words(one.question) == words(other.question) else "numbers"
            if one.id not in best or _RANK[kind] < _RANK[best[one.id].kind]:
                best[one.id] = Match(one.id, one.question, other.id, other.question, kind, 1.0)
    return Found(len(tests), searched, _sorted(best.values()))


def _sorted(matches: Iterable[Match]) -> tuple[Match, ...]:
    return tuple(sorted(matches, key=lambda match: (_RANK[match.kind], -match.share, match.id)))


def _runs(found: Sequence[str], run: int) -> set[tuple[str, ...]]:
    return {tuple(found[i : i + run]) for i in range(len(found) - run + 1)}


def _places(keys: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], list[int]]:
    return _places_of_each([key] if key else [] for key in keys)


def _places_of_each(groups: Iterable[Iterable[tuple[str, ...]]]) -> dict[tuple[str, ...], list[int]]:
    places: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    for place, group in enumerate(groups):
        for key in group:
            places[key].append(place)
    return dict(places)


def _texts(folder: epath.Path) -> Iterator[tuple[str, str]]:
    """Yield the texts of a folder and of those in it: strings of JSON, paragraphs of text files."""
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; give one with files of JSON, JSON lines or text as --against")
    paths = [path for path in _walk(folder) if path.suffix in (".json", ".jsonl", ".txt", ".md")]
    if not paths:
        raise UserError(f"{folder} holds no .json, .jsonl, .txt or .md file to check against")
    for path in paths:
        content = path.read_bytes()
        if path.suffix in (".txt", ".md"):
            text = content.decode("utf-8", "replace")
            yield from (
                (f"{path}, paragraph {i}", part) for i, part in enumerate(text.split("\n\n"), 1) if part.strip()
            )
            continue
        for row in rows(str(path), path.name, "", content):
            try:
                value = json.loads(row.line.decode())
            except (ValueError, RecursionError) as error:
                raise UserError(f"{row.where}: not valid JSON") from error
            yield from ((row.where, text) for text in _strings(value))


def _walk(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)
