"""Sets of real numbers as intervals, and equations and inequalities as differences that are compared with 0."""

from __future__ import annotations

import itertools

from ttcjax.text.grading.algebra import numeric
from ttcjax.text.grading.algebra.exact import Unsupported, form, proportional, sign_free_atoms
from ttcjax.text.grading.algebra.latex_tokens import Node

Piece = tuple[Node, Node, bool, bool]
"""An interval: its ends, and whether they belong to it."""

_INFINITY: Node = ("const", "inf")


def intervals(node: Node) -> list[Piece] | None:
    """Return a set of reals as intervals; `None` where it is none that is read as such."""
    if node == ("var", r"\mathbb{R}"):
        return [(("neg", _INFINITY), _INFINITY, False, False)]
    if node[0] == "seq" and len(node) == 5 and node[1] in "([" and node[2] in ")]":
        return [(node[3], node[4], node[1] == "[", node[2] == "]")]
    if node[0] == "set":
        return [(item, item, True, True) for item in node[1:]]
    if node[0] == "in":
        return intervals(node[2])
    if node[0] == "union":
        parts = [intervals(part) for part in node[1:]]
        return None if any(part is None for part in parts) else [piece for part in parts for piece in part or []]
    if node[0] == "minus" and node[2][0] == "set" and (whole := intervals(node[1])) is not None and len(whole) == 1:
        points = sorted(((_end(item), item) for item in node[2][1:]), key=lambda pair: pair[0] or 0)
        if any(number is None for number, _ in points):
            return None
        ends = [whole[0][0], *(item for _, item in points), whole[0][1]]
        closed = [whole[0][2], *(False for _ in points), whole[0][3]]
        return [
            (low, high, closed[0] if i == 0 else False, closed[-1] if i == len(ends) - 2 else False)
            for i, (low, high) in enumerate(itertools.pairwise(ends))
        ]
    return None


def _end(node: Node):
    """Return an end of an interval as a number; `None` where it is no real constant."""
    if node == _INFINITY:
        return float("inf")
    if node == ("neg", _INFINITY):
        return float("-inf")
    return numeric.value(node)


def merged(found: list[Piece]) -> list[Piece] | None:
    """Return intervals in order, those that touch made one; `None` where an end is no number."""
    ends = [(_end(piece[0]), _end(piece[1]), piece) for piece in found]
    if any(low is None or high is None for low, high, _ in ends):
        return None
    whole: list[list] = []
    for low, high, piece in sorted(ends, key=lambda end: (end[0], not end[2][2])):
        if whole:
            last = whole[-1]
            if low < last[1] or (low == last[1] and (piece[2] or last[2][3])):
                if high > last[1]:
                    last[1], last[2] = high, (last[2][0], piece[1], last[2][2], piece[3])
                elif high == last[1]:
                    last[2] = (*last[2][:3], last[2][3] or piece[3])
                continue
        whole.append([low, high, piece])
    return [piece for _, _, piece in whole]


_OPPOSITE = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}

Difference = tuple[Node, str]
"""A difference of two sides, and how it compares with 0."""


def differences(node: Node) -> list[Difference]:
    found = []
    for (left, right), sign in zip(itertools.pairwise(node[1]), node[2], strict=True):
        if sign in (">", ">="):
            left, right, sign = right, left, _OPPOSITE[sign]
        found.append((("add", left, ("neg", right)), sign))
    return found


def same_difference(a: Difference, g: Difference) -> bool | None:
    if a[1] != g[1]:
        return False
    directed = a[1] in ("<", "<=")
    try:
        left, right = form(a[0]), form(g[0])
        factor = proportional(left, right)
        if factor is not None and (not directed or (factor > 0 and sign_free_atoms((left, right)))):
            return True
        if not left.terms or not right.terms:
            return False
    except Unsupported:
        pass
    sign = numeric.ratio(a[0], g[0])
    return sign is not None and (sign > 0 or not directed)


def has_relations(node: Node) -> bool:
    """Return whether a tree is a list of equations or inequalities, or has some in it."""
    return node[0] in ("list", "set", "union") and any(item[0] == "rel" for item in node[1:])


def solutions(node: Node) -> list[Piece] | None:
    """Return the solutions of a solved inequality such as `0 < x <= 1`, or of several joined by `or`, as intervals."""
    if has_relations(node):
        parts = [solutions(item) for item in node[1:]]
        return None if any(part is None for part in parts) else [piece for part in parts for piece in part or []]
    if node[0] != "rel":
        return None
    sides, signs = node[1], node[2]
    names = [i for i, side in enumerate(sides) if side[0] == "var"]
    if len(names) != 1 or len(sides) > 3 or any(_end(s) is None for i, s in enumerate(sides) if i not in names):
        return None
    low: tuple[Node, bool] = (("neg", _INFINITY), False)
    high: tuple[Node, bool] = (_INFINITY, False)
    for i, sign in enumerate(signs):
        before, after = sides[i], sides[i + 1]
        if sign == "=":
            value = after if i == names[0] else before
            return [(value, value, True, True)]
        if sign == "!=":
            value = after if i == names[0] else before
            return [(low[0], value, False, False), (value, high[0], False, False)]
        if sign not in _OPPOSITE or names[0] not in (i, i + 1):
            return None
        other = after if names[0] == i else before
        is_upper = (sign[0] == "<") == (names[0] == i)
        if is_upper:
            high = (other, sign.endswith("="))
        else:
            low = (other, sign.endswith("="))
    return [(low[0], high[0], low[1], high[1])]
