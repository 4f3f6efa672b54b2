"""Expressions compared by their values at points, to many digits, where exact forms do not tell."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from ttcjax.text.grading.algebra.exact import MAX_FACTORIAL, Unsupported, based
from ttcjax.text.grading.algebra.latex_tokens import Node

_DIGITS = (30, 120)
_CONSTANT_DIGITS = (30, 200, 1500)
"""Digits to which values are computed, one after the other while they agree; of constants the last ones."""
_LARGEST_EXPONENT = 10**6
_NEEDED = 2
"""Points at which both sides must be defined."""

# Points of both signs, small and larger, and whole numbers at the end: some powers are real only there.
_POINTS: tuple[tuple[Fraction, ...], ...] = (
    (Fraction(13, 7), Fraction(23, 11), Fraction(31, 13), Fraction(5, 3)),
    (Fraction(-17, 9), Fraction(29, 12), Fraction(-7, 5), Fraction(19, 8)),
    (Fraction(3, 11), Fraction(5, 17), Fraction(7, 23), Fraction(2, 13)),
    (Fraction(-4, 13), Fraction(-7, 19), Fraction(5, 29), Fraction(-3, 23)),
    (Fraction(41, 6), Fraction(37, 10), Fraction(53, 14), Fraction(-47, 9)),
    (Fraction(3), Fraction(5), Fraction(2), Fraction(4)),
    (Fraction(6), Fraction(2), Fraction(7), Fraction(3)),
)


class _Undefined(Exception):
    """No value, or none that is real, at this point."""


def agree(left: Node, right: Node) -> bool | None:
    """Return whether two expressions have the same values; `None` where too few could be computed."""
    return _sampled([left, right], lambda values, mp: _close(values[0], values[1], mp))


def ratio(left: Node, right: Node) -> int | None:
    """Return the sign of the constant that `right` is of `left` at all points; `None` where there is no such constant.

    Both are differences of two sides of an equation, so their values need not be far from 0.
    """
    seen: list[Any] = []

    def steady(values: Sequence[Any], mp: Any) -> bool:
        if abs(values[0]) < mp.mpf(10) ** -20 or abs(values[1]) < mp.mpf(10) ** -20:
            raise _Undefined
        seen.append(values[1] / values[0])
        return _close(seen[-1], seen[0], mp)

    if not _variables(left) | _variables(right):
        return 1 if agree(left, right) else None
    if not _sampled([left, right], steady, needed=3, digits=(40,)):
        return None
    return 1 if seen[0].real > 0 else -1


def value(node: Node) -> Any:
    """Return the value of a constant real expression to 30 digits; `None` where it has none."""
    mp = _mp()
    with mp.workdps(30):
        try:
            found = _evaluate(node, {}, mp, False)
        except (_Undefined, Unsupported, ArithmeticError, ValueError):
            return None
    return found if getattr(found, "imag", 0) == 0 else None


def _mp() -> Any:
    import mpmath

    return mpmath.mp


def _sampled(nodes: list[Node], same: Any, needed: int = _NEEDED, digits: Sequence[int] | None = None) -> bool | None:
    mp = _mp()
    names = sorted({name for node in nodes for name in _variables(node)})
    complex_allowed = any(_has_imaginary(node) for node in nodes)
    points = _POINTS if names else _POINTS[:1]
    wanted = min(needed, len(points))
    found = 0
    for number, point in enumerate(points):
        where = {name: point[i % 4] + Fraction(i // 4, 3) for i, name in enumerate(names)}
        for places in digits or (_DIGITS if names else _CONSTANT_DIGITS):
            with mp.workdps(places):
                try:
                    values = [_evaluate(node, where, mp, complex_allowed) for node in nodes]
                    if not same(values, mp):
                        return False
                except (_Undefined, ArithmeticError, ValueError):
                    break
                except Unsupported:
                    return None
        else:
            found += 1
        if found >= wanted and number >= min(2, len(points) - 1):
            return True
    return None


def _close(a: Any, b: Any, mp: Any) -> bool:
    size = max(abs(a), abs(b))
    return bool(abs(a - b) <= size * mp.mpf(10) ** -(mp.dps - 12))


def _variables(node: Any) -> set[str]:
    if not isinstance(node, tuple) or not node:
        return set()
    if node[0] == "var":
        return {node[1]}
    return set().union(*(_variables(part) for part in node[1:])) if len(node) > 1 else set()


def has_variables(*nodes: Node) -> bool:
    """Return whether any of some expressions has a variable."""
    return any(map(_variables, nodes))


def _has_imaginary(node: Any) -> bool:
    return isinstance(node, tuple) and (node[:2] == ("const", "i") or any(_has_imaginary(part) for part in node))


_REAL_FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
    "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc", "sinh": "sinh",
    "cosh": "cosh", "tanh": "tanh", "ln": "log", "floor": "floor", "ceil": "ceil", "abs": "fabs",
}  # fmt: skip
_ANGLES = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])


def _evaluate(node: Node, where: dict[str, Fraction], mp: Any, unreal: bool) -> Any:
    kind = node[0]
    if kind == "num":
        return mp.mpf(node[1].numerator) / node[1].denominator
    if kind == "var":
        if node[1] not in where:
            raise _Undefined
        number = where[node[1]]
        return mp.mpf(number.numerator) / number.denominator
    if kind == "const":
        if node[1] == "inf":
            raise Unsupported("infinity")
        return {"pi": mp.pi, "e": mp.e, "i": mp.j}[node[1]] * mp.one
    if kind == "base":
        return mp.mpf(based(node[1], node[2]))
    if kind == "call":
        return _real(_function(node, where, mp, unreal), unreal)
    parts = [_evaluate(part, where, mp, unreal) for part in node[1:] if isinstance(part, tuple)]
    if kind == "add":
        return sum(parts[1:], parts[0])
    if kind == "neg":
        return -parts[0]
    if kind == "mul":
        return parts[0] * parts[1]
    if kind == "div":
        if parts[1] == 0:
            raise _Undefined
        return parts[0] / parts[1]
    if kind == "pow":
        return _power(node, parts[0], parts[1], mp, unreal)
    if kind in ("unit", "deg"):
        return parts[0]
    if kind == "pct":
        return parts[0] / 100
    if kind == "fact":
        if abs(parts[0]) > MAX_FACTORIAL:
            raise Unsupported("a factorial")
        return _real(mp.gamma(parts[0] + 1), unreal)
    raise Unsupported(kind)


def _power(node: Node, base: Any, exponent: Any, mp: Any, unreal: bool) -> Any:
    if abs(exponent) > _LARGEST_EXPONENT or (base != 0 and abs(mp.log(abs(base))) > _LARGEST_EXPONENT):
        raise Unsupported("a power too large")
    if base == 0:
        if getattr(exponent, "imag", 0) != 0 or exponent <= 0:
            raise _Undefined
        return mp.zero
    real = getattr(base, "imag", 0) == 0 and getattr(exponent, "imag", 0) == 0
    if real and base.real < 0:
        # An odd root of a negative number is the real one, as in exact forms.
        root = _as_fraction(node[2])
        if root is not None and root.denominator % 2 and root.denominator > 1:
            size = mp.power(-base.real, mp.mpf(root.numerator) / root.denominator)
            return -size if root.numerator % 2 else size
        if root is None and exponent != mp.nint(exponent) and not unreal:
            raise _Undefined
    return _real(mp.power(base, exponent), unreal)


def _as_fraction(node: Node) -> Fraction | None:
    if node[0] == "num":
        return node[1]
    if node[0] == "neg":
        inner = _as_fraction(node[1])
        return None if inner is None else -inner
    if node[0] == "div":
        above, below = _as_fraction(node[1]), _as_fraction(node[2])
        return above / below if above is not None and below else None
    return None


def _real(number: Any, unreal: bool) -> Any:
    if not unreal and getattr(number, "imag", 0) != 0:
        raise _Undefined
    return number


def _function(node: Node, where: dict[str, Fraction], mp: Any, unreal: bool) -> Any:
    name = node[1]
    if name in _ANGLES:
        parts = [_angle(part, where, mp, unreal) for part in node[2:]]
    else:
        parts = [_evaluate(part, where, mp, unreal) for part in node[2:]]
    if any(abs(part) > mp.mpf(10) ** 60 for part in parts):
        raise Unsupported("an argument too large")
    if name in _REAL_FUNCTIONS and len(parts) == 1:
        if name == "ln" and parts[0] == 0:
            raise _Undefined
        return getattr(mp, _REAL_FUNCTIONS[name])(parts[0])
    if name == "log":
        if parts[0] == 0:
            raise _Undefined
        return mp.log(parts[0]) / mp.log(10)
    if name in ("max", "min"):
        return max(parts) if name == "max" else min(parts)
    if name == "binom" and len(parts) == 2:
        if any(abs(part) > MAX_FACTORIAL for part in parts):
            raise Unsupported("a binomial coefficient")
        return mp.binomial(*parts)
    # A function of no known rule: a smooth one that its name and argument determine.
    seed = int.from_bytes(hashlib.sha256(re.sub(r"\W", "", name).encode()).digest()[:3], "big")
    return sum((mp.cos(part * (1 + mp.mpf(seed) / 2**24) + k) for k, part in enumerate(parts)), mp.zero)


def _angle(node: Node, where: dict[str, Fraction], mp: Any, unreal: bool) -> Any:
    if node[0] == "deg":
        return _evaluate(node[1], where, mp, unreal) * mp.pi / 180
    if node[0] in ("add", "mul", "neg", "div"):
        parts = [_angle(part, where, mp, unreal) for part in node[1:]]
        if node[0] == "neg":
            return -parts[0]
        if node[0] == "add":
            return sum(parts[1:], parts[0])
        if node[0] == "div" and parts[1] == 0:
            raise _Undefined
        return parts[0] * parts[1] if node[0] == "mul" else parts[0] / parts[1]
    return _evaluate(node, where, mp, unreal)
