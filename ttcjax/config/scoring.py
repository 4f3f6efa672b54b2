"""Use of verifiers' scores: how those of steps become one of a solution, and which further verifiers judge a bank."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ttcjax.config.base import ConfigError, require

Aggregation = Literal["last", "min", "product", "mean"]
TAKEN = ("prm", "base_orm", "orm", "history", "no_history", "likelihood", "majority")
"""Names of scores that an experiment has already."""


@dataclass(frozen=True)
class OwnVerifier:
    """A verifier that was not trained in the experiment, by its name."""

    name: str
    """What rows and the report call it."""
    aggregate: Aggregation
    """How its scores of steps become one of a solution."""
    place: str
    """Folder of its model, or in place of that a hash of the model."""

    @classmethod
    def parse(cls, text: str) -> OwnVerifier:
        """Read `NAME=FOLDER`, whose last step's score is the solution's, or `NAME:AGGREGATE=FOLDER`.

        Raises:
            ConfigError: It is none of these, or the name cannot be used.
        """
        before, equals, place = text.partition("=")
        name, _, aggregate = before.partition(":")
        how = next((known for known in get_args(Aggregation) if known == (aggregate or "last")), None)
        if not (equals and place and re.fullmatch("[a-z][a-z0-9_]{0,39}", name)) or how is None:
            raise ConfigError(
                f"a verifier of sweep.verifiers is NAME=FOLDER or NAME:AGGREGATE=FOLDER, the name of letters a-z, "
                f"digits and _, AGGREGATE one of {', '.join(get_args(Aggregation))}, and not {text!r}"
            )
        require(name not in TAKEN, f"a verifier of sweep.verifiers is called {name}, as another one is: rename it")
        return cls(name, how, place)

    def __str__(self) -> str:
        return f"{self.name}:{self.aggregate}={self.place}"


def own_verifiers(texts: Sequence[str], contents: Sequence[str] | None) -> tuple[OwnVerifier, ...]:
    """Return the verifiers of a list, each named once.

    Args:
        texts: What `OwnVerifier.parse` reads.
        contents: The same with hashes in place of folders, where they are known.

    Raises:
        ConfigError: One cannot be read, two have a name, or the hashes are those of other verifiers.
    """
    found, hashes = (tuple(map(OwnVerifier.parse, some)) for some in (texts, contents or ()))
    names = [own.name for own in found]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    require(not twice, f"sweep.verifiers has two of the name {twice[0] if twice else ''}: rename one")
    require(
        contents is None or [(own.name, own.aggregate) for own in hashes] == [(v.name, v.aggregate) for v in found],
        "sweep.verifiers_content is of other verifiers than sweep.verifiers: leave it out, a run fills it in",
    )
    return found
