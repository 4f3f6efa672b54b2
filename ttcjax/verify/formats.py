"""Verifiers by the name that a checkpoint's metadata has for them."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import Any

from ttcjax.config import ConfigError, from_dict, to_dict
from ttcjax.runtime.errors import UserError
from ttcjax.verify.value_head import ValueHead
from ttcjax.verify.verifier import Verifier

FORMATS = {
    "value_head": "ttcjax.verify.value_head:ValueHead",
    "token_pair": "ttcjax.verify.token_pair:TokenPair",
}
"""Class of each format; a new verifier has a file in `ttcjax/verify` and a line here."""

_BEFORE = ("prm", "orm", "base_orm")
"""Models of these kinds had a value head before metadata said how a verifier is asked."""


def load(kind: str) -> type[Verifier]:
    """Return the class of verifiers of a kind.

    Raises:
        UserError: There is none.
    """
    if kind not in FORMATS:
        raise UserError(f"unknown kind of verifier {kind!r}; known: {', '.join(FORMATS)}")
    return pkgutil.resolve_name(FORMATS[kind])


def describe(verifier: Verifier) -> dict[str, Any]:
    """Return what `read` finds under `verifier` in a checkpoint's metadata: `kind` and `settings`.

    Raises:
        ValueError: Its class is not among `FORMATS`.
    """
    for kind in FORMATS:
        if load(kind) is type(verifier):
            return {"kind": kind, "settings": to_dict(verifier)}
    raise ValueError(f"{type(verifier).__name__} is none of ttcjax.verify.formats.FORMATS")


def read(metadata: Mapping[str, Any]) -> Verifier | None:
    """Return the verifier that a checkpoint's metadata tells of; `None` for a model that is none.

    Metadata that names no verifier is of an earlier version, where models of the kinds `prm`, `orm` and `base_orm` had
    a value head, and its setting stood in the model's config.

    Raises:
        UserError: It is of an unknown kind, or has settings that its kind does not have.
    """
    if "verifier" not in metadata:
        if metadata.get("kind") not in _BEFORE:
            return None
        return ValueHead(likelihood=bool(metadata.get("model", {}).get("value_likelihood", False)))
    try:
        entry = dict(metadata["verifier"])
        return from_dict(load(entry["kind"]), entry["settings"])
    except UserError:
        raise
    except (ConfigError, TypeError, ValueError, KeyError) as error:
        raise UserError(
            f"the checkpoint's metadata does not say how its verifier is asked ({error}): was it written by a newer "
            "ttcjax?"
        ) from error
