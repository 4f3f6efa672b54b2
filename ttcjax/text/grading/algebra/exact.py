r"""Exact arithmetic with rational numbers, roots, constants, variables and functions.

A value is a `Form`: a sum of products of powers of atoms with rational coefficients, brought to one order. Rational
numbers, products of roots of primes, pi, e and variables have one form each, so where nothing else occurs two forms are
equal or the values differ. Fractions of sums are compared by clearing their denominators (`is_zero`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache

from ttcjax.text.grading.algebra.latex_tokens import Node

MAX_BITS = 60_000
"""Longer integers are not computed."""
_SHOWN_BITS = 14_000
"""Longer integers are not written out: Python refuses to."""
MAX_TERMS = 600
"""Longer sums are not multiplied out."""
MAX_FACTORIAL = 5000
_MOST_ROUNDS = 6
_LARGEST_PRIME = 2000
"""What is left after division by primes up to it stays one factor."""

Monomial = tuple[tuple["Atom", Fraction], ...]

_HALF = Fraction(1, 2)


class Unsupported(Exception):
    """A value that has no form here: undefined, too long, or of another kind."""


class Atom:
    """An indivisible part of a form, known by its `key`.

    `kind` is `var`, `const`, `int` (a prime, or what was not factored), `call`, `sum` (the base of a power), `exp` (a
    number to a power that is no number) or `neg1` (-1 to such a power).
    """

    __slots__ = ("_hash", "key", "kind", "parts")

    def __init__(self, kind: str, key: str, parts: tuple = ()):
        self.kind, self.key, self.parts = kind, key, parts
        self._hash = hash(key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Atom) and other.key == self.key

    def __lt__(self, other: Atom) -> bool:
        return self.key < other.key


IMAGINARY = Atom("const", "i")


class Form:
    """A sum: rational coefficients by products of powers of atoms."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Monomial, Fraction]):
        self.terms = terms

    @classmethod
    def number(cls, value: Fraction | int) -> Form:
        return cls({(): Fraction(value)} if value else {})

    @classmethod
    def atom(cls, atom: Atom, exponent: Fraction = Fraction(1)) -> Form:
        return cls({((atom, exponent),): Fraction(1)})

    def rational(self) -> Fraction | None:
        """Return the value where it is a rational number."""
        if not self.terms:
            return Fraction(0)
        return self.terms.get(()) if len(self.terms) == 1 else None

    def __add__(self, other: Form) -> Form:
        found = dict(self.terms)
        for monomial, coefficient in other.terms.items():
            total = found.get(monomial, 0) + coefficient
            if total:
                found[monomial] = total
            else:
                del found[monomial]
        if len(found) > MAX_TERMS:
            raise Unsupported("too many terms")
        return Form(found)

    def scaled(self, factor: Fraction | int) -> Form:
        return Form({monomial: c * factor for monomial, c in self.terms.items()} if factor else {})

    def __neg__(self) -> Form:
        return self.scaled(-1)

    def __sub__(self, other: Form) -> Form:
        return self + -other

    def __mul__(self, other: Form) -> Form:
        if len(self.terms) * len(other.terms) > MAX_TERMS:
            raise Unsupported("too many terms")
        found = Form({})
        flat: dict[Monomial, Fraction] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                monomial, factor, sums = _merged(left, right)
                coefficient = a * b * factor
                _check(coefficient)
                if sums:
                    product = Form({monomial: coefficient})
                    for base, exponent in sums:
                        product = product * power(base, exponent)
                    found = found + product
                else:
                    flat[monomial] = flat.get(monomial, 0) + coefficient
        return found + Form({monomial: c for monomial, c in flat.items() if c})

    def key(self) -> str:
        """Return the form as text, in the spelling that answers are read in."""
        if not self.terms:
            return "0"
        shown = "".join(_shown(monomial, c) for monomial, c in sorted(self.terms.items(), key=_order, reverse=True))
        return shown.removeprefix("+")

    def atoms(self) -> set[Atom]:
        return {atom for monomial in self.terms for atom, _ in monomial}


def _order(term: tuple[Monomial, Fraction]) -> tuple:
    degree = sum((e for atom, e in term[0] if atom.kind == "var"), Fraction(0))
    return (degree, [(atom.key, e) for atom, e in term[0]])


def _shown(monomial: Monomial, coefficient: Fraction) -> str:
    sign, size = ("-", -coefficient) if coefficient < 0 else ("+", coefficient)
    parts = [] if size == 1 and monomial else [_spelled(size)]
    for atom, exponent in monomial:
        base = f"({atom.key})" if atom.kind == "sum" else atom.key
        if exponent == 1:
            parts.append(base)
        elif exponent.denominator == 1 and exponent > 0:
            parts.append(f"{base}^{exponent}" if atom.kind not in ("exp", "neg1") else f"({base})^{exponent}")
        else:
            parts.append(f"{base}^({exponent})" if atom.kind not in ("exp", "neg1") else f"({base})^({exponent})")
    return sign + "*".join(parts)


def _spelled(number: Fraction | int) -> str:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > _SHOWN_BITS:
        raise Unsupported("a number too long to be written")
    return str(number)


def _check(value: Fraction) -> None:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise Unsupported("a number too long")


def _merged(left: Monomial, right: Monomial) -> tuple[Monomial, Fraction, list[tuple[Form, Fraction]]]:
    """Return the product of two monomials: what stays, a factor, and sums to be multiplied out."""
    if not left or not right:
        return left or right, Fraction(1), []
    powers: dict[Atom, Fraction] = dict(left)
    for atom, exponent in right:
        powers[atom] = powers.get(atom, Fraction(0)) + exponent
    return normal(powers)


def normal(powers: dict[Atom, Fraction]) -> tuple[Monomial, Fraction, list[tuple[Form, Fraction]]]:
    """Return a product of powers in its normal form: see `_merged`."""
    factor, sums, kept = Fraction(1), [], []
    for atom, exponent in powers.items():
        if atom.kind == "int":
            whole = math.floor(exponent)
            if whole:
                factor *= _integer_power(Fraction(int(atom.key)), whole)
                exponent -= whole
        elif atom == IMAGINARY:
            if exponent.denominator != 1:
                raise Unsupported("a root of i")
            exponent = Fraction(int(exponent) % 4)
            if exponent >= 2:
                factor, exponent = -factor, exponent - 2
        elif atom.kind == "sum" and exponent >= 1:
            whole = math.floor(exponent)
            sums.append((atom.parts[0], Fraction(whole)))
            exponent -= whole
        elif atom.kind == "call" and atom.parts[0] == "abs" and exponent.denominator == 1 and exponent % 2 == 0:
            sums.append((atom.parts[1], exponent))
            exponent = Fraction(0)
        if exponent:
            kept.append((atom, exponent))
    kept.sort(key=lambda pair: pair[0].key)
    return tuple(kept), factor, sums


def _product(powers: dict[Atom, Fraction]) -> Form:
    monomial, factor, sums = normal(powers)
    found = Form({monomial: factor})
    for base, exponent in sums:
        found = found * power(base, exponent)
    return found


def _integer_power(base: Fraction, exponent: int) -> Fraction:
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size > 1 and size * abs(exponent) > MAX_BITS:
        raise Unsupported("a power too large")
    if not base and exponent < 0:
        raise Unsupported("division by zero")
    return base ** (exponent % 2 if abs(base) == 1 else exponent)


def power(base: Form, exponent: Fraction) -> Form:
    """Return a form to a rational power; roots are real where there is a real one.

    Raises:
        Unsupported: The power is undefined or too long.
    """
    if exponent == 0:
        if not base.terms:
            raise Unsupported("0^0")
        return Form.number(1)
    if exponent == 1:
        return base
    if not base.terms:
        if exponent < 0:
            raise Unsupported("division by zero")
        return base
    if len(base.terms) == 1:
        ((monomial, coefficient),) = base.terms.items()
        return _number_power(coefficient, exponent) * _monomial_power(monomial, exponent)
    if exponent.denominator == 1 and exponent > 0:
        if exponent > 40:
            raise Unsupported("a power too large")
        found, square, left = Form.number(1), base, int(exponent)
        while left:
            if left & 1:
                found = found * square
            left >>= 1
            if left:
                square = square * square
        return found
    content = Fraction(
        math.gcd(*(c.numerator for c in base.terms.values())), math.lcm(*(c.denominator for c in base.terms.values()))
    )
    if base.terms[max(base.terms, key=lambda m: _order((m, Fraction(1))))] < 0 and exponent.denominator == 1:
        content = -content
    bare = base.scaled(1 / content)
    return _number_power(content, exponent) * _product({Atom("sum", bare.key(), (bare,)): exponent})


def _number_power(base: Fraction, exponent: Fraction) -> Form:
    if exponent.denominator == 1:
        return Form.number(_integer_power(base, int(exponent)))
    powers: dict[Atom, Fraction] = {}
    factor = Form.number(1)
    if base < 0:
        base = -base
        if exponent.denominator % 2:
            factor = Form.number(-1 if exponent.numerator % 2 else 1)
        elif exponent.denominator == 2:
            factor = _product({IMAGINARY: Fraction(exponent.numerator)})
        else:
            raise Unsupported("a root that is not real")
    _check(base)
    for number, sign in ((base.numerator, 1), (base.denominator, -1)):
        for prime, count in factors(number):
            atom = Atom("int", _spelled(prime))
            powers[atom] = powers.get(atom, Fraction(0)) + sign * count * exponent
    return factor * _product(powers)


def _monomial_power(monomial: Monomial, exponent: Fraction) -> Form:
    if exponent.denominator == 1:
        return _product({atom: e * exponent for atom, e in monomial})
    powers: dict[Atom, Fraction] = {}
    for atom, e in monomial:
        if atom == IMAGINARY or atom.kind == "neg1":
            raise Unsupported("a root that is not real")
        if exponent.denominator % 2 == 0 and e.denominator == 1 and e % 2 == 0 and atom.kind in ("var", "call"):
            inner = Form.atom(atom)
            atom = absolute(atom, inner)
        powers[atom] = powers.get(atom, Fraction(0)) + e * exponent
    return _product(powers)


def absolute(atom: Atom, inner: Form) -> Atom:
    """Return the atom of an absolute value."""
    if atom.kind == "call" and atom.parts[0] == "abs":
        return atom
    return Atom("call", f"abs({inner.key()})", ("abs", inner))


@lru_cache(maxsize=4096)
def factors(number: int) -> tuple[tuple[int, int], ...]:
    """Return the prime factors with their multiplicities; a large rest stays one, its root taken where it has one."""
    found, prime = [], 2
    while prime <= _LARGEST_PRIME and prime * prime <= number:
        count = 0
        while number % prime == 0:
            number //= prime
            count += 1
        if count:
            found.append((prime, count))
        prime += 1 if prime == 2 else 2
    if number > 1:
        root = math.isqrt(number)
        found.append((root, 2) if root * root == number else (number, 1))
    return tuple(found)


def form(node: Node) -> Form:
    """Return the form of a tree.

    Raises:
        Unsupported: The tree is no number or expression, is undefined or too long.
    """
    kind = node[0]
    if kind == "num":
        return Form.number(node[1])
    if kind == "var":
        return Form.atom(Atom("var", node[1]))
    if kind == "const":
        return Form.atom(Atom("const", r"\infty" if node[1] == "inf" else "\\pi" if node[1] == "pi" else node[1]))
    if kind == "add":
        found = form(node[1])
        for term in node[2:]:
            found = found + form(term)
        return found
    if kind == "neg":
        return -form(node[1])
    if kind == "mul":
        return form(node[1]) * form(node[2])
    if kind == "div":
        return form(node[1]) * power(form(node[2]), Fraction(-1))
    if kind == "pow":
        return _raised(form(node[1]), form(node[2]))
    if kind in ("unit", "deg"):
        return form(node[1])
    if kind == "pct":
        return form(node[1]).scaled(Fraction(1, 100))
    if kind == "fact":
        number = form(node[1]).rational()
        if number is None:
            return _call("factorial", [form(node[1])])
        return Form.number(_factorial(number))
    if kind == "call":
        arguments = [_angle(argument) if node[1] in _ANGLES else form(argument) for argument in node[2:]]
        return _call(node[1], arguments)
    if kind == "base":
        return Form.number(based(node[1], node[2]))
    raise Unsupported(kind)


_ANGLES = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])


def _angle(node: Node) -> Form:
    if node[0] == "deg":
        return form(node[1]) * Form({((Atom("const", "\\pi"), Fraction(1)),): Fraction(1, 180)})
    if node[0] in ("add", "mul", "neg", "div"):
        parts = [_angle(part) for part in node[1:]]
        if node[0] == "neg":
            return -parts[0]
        if node[0] == "add":
            found = parts[0]
            for part in parts[1:]:
                found = found + part
            return found
        return parts[0] * (parts[1] if node[0] == "mul" else power(parts[1], Fraction(-1)))
    return form(node)


def based(digits: str, base: int) -> int:
    """Return the value of digits in a base.

    Raises:
        Unsupported: The digits are not of that base.
    """
    try:
        return int(digits, base)
    except ValueError as error:
        raise Unsupported("digits of another base") from error


def _factorial(number: Fraction) -> int:
    if number.denominator != 1 or not 0 <= number <= MAX_FACTORIAL:
        raise Unsupported("a factorial")
    return math.factorial(int(number))


def _raised(base: Form, exponent: Form) -> Form:
    number = exponent.rational()
    if number is not None:
        return power(base, number)
    found = Form.number(1)
    for monomial, coefficient in exponent.terms.items():
        if not monomial:
            found = found * power(base, coefficient)
        else:
            found = found * _exponential(base, Form({monomial: Fraction(1)}), coefficient)
    return found


def _exponential(base: Form, exponent: Form, times: Fraction) -> Form:
    number = base.rational()
    if number is None:
        name = f"({base.key()})"
        if len(base.terms) == 1:
            ((monomial, coefficient),) = base.terms.items()
            if coefficient == 1 and len(monomial) == 1:
                atom, e = monomial[0]
                base, times, name = Form.atom(atom), times * e, atom.key
        return _product({Atom("exp", f"{name}^({exponent.key()})", (base, exponent)): times})
    if number == 0:
        raise Unsupported("0 to a power that may be negative")
    powers: dict[Atom, Fraction] = {}
    if number < 0:
        powers[Atom("neg1", f"(-1)^({exponent.key()})", (Form.number(-1), exponent))] = times
    for part, sign in ((abs(number).numerator, 1), (number.denominator, -1)):
        for prime, count in factors(part):
            atom = Atom("exp", f"{_spelled(prime)}^({exponent.key()})", (Form.number(prime), exponent))
            powers[atom] = powers.get(atom, Fraction(0)) + sign * count * times
    return _product(powers)


def _call(name: str, arguments: list[Form]) -> Form:
    numbers = [argument.rational() for argument in arguments]
    first = numbers[0] if numbers else None
    if name == "abs" and len(arguments) == 1:
        if first is not None:
            return Form.number(abs(first))
        if len(arguments[0].terms) == 1:
            ((monomial, coefficient),) = arguments[0].terms.items()
            found = Form.number(abs(coefficient))
            for atom, e in monomial:
                if atom == IMAGINARY:
                    continue
                known = atom.kind in ("int", "const", "exp") or (e.denominator == 1 and e % 2 == 0)
                found = found * _product({atom if known else absolute(atom, Form.atom(atom)): e})
            return found
    if name == "ln" and first is not None:
        if first <= 0:
            raise Unsupported("a logarithm that is not real")
        found = Form.number(0)
        for part, sign in ((first.numerator, 1), (first.denominator, -1)):
            for prime, count in factors(part):
                found = found + Form.atom(Atom("call", f"\\ln({prime})", ("ln", Form.number(prime)))).scaled(
                    sign * count
                )
        return found
    if name == "ln" and list(arguments[0].terms.values()) == [1] and len(next(iter(arguments[0].terms))) == 1:
        ((atom, e),) = next(iter(arguments[0].terms))
        if atom.key == "e":
            return Form.number(e)
        if atom.kind == "exp" and atom.parts[0].key() == "e":
            return atom.parts[1].scaled(e)
    if name == "log":
        return _call("ln", arguments) * power(_call("ln", [Form.number(10)]), Fraction(-1))
    if name in ("floor", "ceil") and first is not None:
        return Form.number(math.floor(first) if name == "floor" else math.ceil(first))
    if name == "binom" and all(number is not None and number.denominator == 1 for number in numbers):
        n, k = (int(number) for number in numbers if number is not None)
        if not 0 <= k <= n <= MAX_FACTORIAL:
            raise Unsupported("a binomial coefficient")
        return Form.number(math.comb(n, k))
    if name in ("max", "min", "gcd", "lcm") and arguments and all(number is not None for number in numbers):
        exact = [number for number in numbers if number is not None]
        if name in ("max", "min"):
            return Form.number(max(exact) if name == "max" else min(exact))
        if all(number.denominator == 1 for number in exact):
            whole = [int(number) for number in exact]
            return Form.number(math.gcd(*whole) if name == "gcd" else math.lcm(*whole))
    spelled = f"\\{name}" if name in _COMMANDS else name
    return Form.atom(Atom("call", f"{spelled}({','.join(a.key() for a in arguments)})", (name, *arguments)))


_COMMANDS = _ANGLES | {"ln", "arcsin", "arccos", "arctan", "max", "min", "gcd"}


def is_zero(difference: Form) -> bool | None:
    """Return whether a form is zero; `None` where the form alone does not tell.

    Denominators are cleared by multiplying with them; they are taken not to vanish everywhere.
    """
    for _ in range(_MOST_ROUNDS):
        if not difference.terms:
            return True
        least: dict[Atom, Fraction] = {}
        for monomial in difference.terms:
            for atom, exponent in monomial:
                if atom.kind == "sum" and exponent < 0:
                    least[atom] = min(least.get(atom, exponent), exponent)
        if not least:
            break
        try:
            difference = _times(difference, {atom: -exponent for atom, exponent in least.items()})
        except Unsupported:
            return None
    if not difference.terms:
        return True
    return False if all(map(_independent, difference.atoms())) else None


def _times(found: Form, powers: dict[Atom, Fraction]) -> Form:
    total = Form({})
    for monomial, coefficient in found.terms.items():
        merged = dict(monomial)
        for atom, exponent in powers.items():
            merged[atom] = merged.get(atom, Fraction(0)) + exponent
        total = total + _product(merged).scaled(coefficient)
    return total


def _independent(atom: Atom) -> bool:
    """Return whether an atom is of those of which a nonzero form is a nonzero value.

    Roots of different primes are independent over the rationals (Besicovitch 1940), pi and variables of them.
    """
    if atom.kind == "int":
        return len(atom.key) < 7  # below `_LARGEST_PRIME` squared it is a prime
    return atom.kind in ("var", "const")


def proportional(left: Form, right: Form) -> Fraction | None:
    """Return the rational factor by which `right` is a multiple of `left`; `None` where there is none to be seen."""
    left, right = cleared(left), cleared(right)
    if not left.terms or left.terms.keys() != right.terms.keys():
        return None
    ratios = {right.terms[monomial] / c for monomial, c in left.terms.items()}
    return ratios.pop() if len(ratios) == 1 else None


def cleared(found: Form) -> Form:
    """Return a form without the denominators and the variables that all its terms have in common.

    What is multiplied with may be negative, so only equations stay what they are.
    """
    for _ in range(_MOST_ROUNDS):
        least: dict[Atom, Fraction] = {}
        for monomial in found.terms:
            for atom, exponent in monomial:
                if exponent < 0 and atom.kind in ("sum", "var"):
                    least[atom] = min(least.get(atom, exponent), exponent)
        if not least:
            break
        found = _times(found, {atom: -exponent for atom, exponent in least.items()})
    return found


def sign_free_atoms(forms: Iterable[Form]) -> bool:
    """Return whether no form has a denominator with a variable, whose sign would turn an inequality."""
    return not any(
        exponent < 0 and atom.kind in ("sum", "var", "call") for f in forms for m in f.terms for atom, exponent in m
    )
