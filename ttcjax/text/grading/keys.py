"""One text for all spellings of an answer, for votes."""

from __future__ import annotations

import re
from fractions import Fraction

from ttcjax.config.convention import MATH, Convention
from ttcjax.text.grading.algebra import numeric
from ttcjax.text.grading.algebra.exact import Form, Unsupported, cleared, form
from ttcjax.text.grading.algebra.latex_tokens import Node
from ttcjax.text.grading.comparison import SCALARS, bare, first_label, labelled, readings
from ttcjax.text.grading.spelling import plain
from ttcjax.text.grading.wording import meant, words


def key(answer: str, convention: Convention = MATH) -> str | None:
    """Return one text for all answers that exact arithmetic shows to be the same; `None` where it does not apply.

    The text is itself an answer with that value, and its own key.
    """
    text = meant(plain(answer))
    found = [] if re.fullmatch("[A-Za-z]{3,}", text) else readings(text, convention)
    try:
        if found:
            return _key(first_label(bare(found[0], convention)), convention)
    except (Unsupported, RecursionError):
        return None
    named = words(text, convention)
    return named if named.replace(" ", "").isalpha() else None


def _key(node: Node, convention: Convention) -> str:
    node = bare(node, convention)
    kind = node[0]
    if kind == "base":
        return f"{node[1].lstrip('0') or '0'}_{{{node[2]}}}"
    if kind == "pct" and convention.percent != "share":
        return _key(node[1], convention)
    if kind in SCALARS:
        return form(node).key()
    if kind == "seq" and len(node) == 4 and node[3][0] == "text":
        return _key(node[3], convention)
    if kind == "seq":
        return f"{node[1]}{','.join(_key(item, convention) for item in node[3:])}{node[2]}"
    if kind in ("set", "list"):
        named = [labelled(item) for item in node[1:]]
        if all(named):  # as in `x = 1, y = 2`
            items = [f"{_key(pair[0], convention)}={_key(pair[1], convention)}" for pair in named if pair]
        else:
            items = [_key(item, convention) for item in node[1:]]
        if kind == "set" or not convention.ordered_lists:
            items.sort()
        joined = ", ".join(items)
        return joined if kind == "list" else rf"\{{{joined}\}}"
    if kind == "union":
        return r" \cup ".join(sorted(_key(part, convention) for part in node[1:]))
    if kind == "matrix":
        rows = r" \\ ".join(" & ".join(_key(entry, convention) for entry in row) for row in node[1])
        return rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}"
    if kind == "text":
        inner = None if node[1].replace(" ", "").isalpha() else key(node[1], convention)
        named = words(node[1], convention)
        return inner or (node[1] if len(node[1]) == 1 else rf"\text{{{named}}}" if len(named) == 2 else named)
    if convention.ignore_labels and (named := labelled(node)) and not numeric.has_variables(named[1]):
        return _key(named[1], convention)
    if kind == "rel" and node[2] == ("=",):
        left = cleared(form(node[1][0]) - form(node[1][1]))
        if not left.terms:
            raise Unsupported("an equation of nothing")
        first = max(left.terms, key=lambda monomial: Form({monomial: Fraction(1)}).key())
        return f"{left.scaled(1 / left.terms[first]).key()}=0"
    raise Unsupported(kind)
