"""The question templates: each draws numbers for a level and returns question, steps, answer and formula.

Two things make a level harder: more steps, and somewhat larger numbers. Numbers stay small on purpose: then
the sums and products behind all questions are a few hundred facts, which models of this size can learn both
to use and to judge, and what is hard is to get through many steps without a slip.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

_OPS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}
_NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn")
_THINGS = ("coins", "cards", "books", "shells")
_PLACES = ("garden", "room", "field", "yard", "court", "park")
_BOXES = ("box", "crate", "tank", "brick", "case", "block")
_FUNCTIONS = ("f", "g", "h", "p", "q", "r")
_TERM = (6, 8, 10, 12, 15)
"""Largest term of a sum, by level."""
_FACTOR = (4, 5, 6, 6, 7)
"""Largest factor of a product, by level."""
_LIMIT = (15, 20, 25, 30, 40)
"""Largest intermediate value, by level."""


@dataclass(frozen=True)
class Problem:
    """A question with its derivation and, apart from it, a formula for the answer."""

    question: str
    steps: tuple[str, ...]
    answer: int
    formula: str
    """A sympy expression built from the question's numbers alone; tests compare it with `answer`."""


class _Steps:
    """Collects a derivation; every result is computed here, so text and numbers cannot part."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, a: int, op: str, b: int, label: str = "") -> int:
        if op == "/" and a % b:
            raise ValueError(f"{a} / {b} is not whole")
        result = _OPS[op](a, b)
        self.lines.append(f"{label + ': ' if label else ''}{a}{op if op != 'mod' else ' mod '}{b}={result}")
        return result


def _problem(question: str, steps: _Steps, answer: int, formula: str) -> Problem:
    return Problem(question, tuple(steps.lines), answer, formula)


def _term(rng: random.Random, level: int) -> int:
    return rng.randint(2, _TERM[level - 1])


def _factor(rng: random.Random, level: int) -> int:
    return rng.randint(2, _FACTOR[level - 1])


def prealgebra_story(rng: random.Random, level: int) -> Problem:
    """A count that grows and shrinks: a chain of `level + 1` operations."""
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    limit = _LIMIT[level - 1]
    value = start = _term(rng, level)
    steps, events, formula = _Steps(), [], str(start)
    for _ in range(level + 1):
        options = [("+", a) for a in (_term(rng, level),) if value + a <= limit]
        options += [("-", a) for a in (_term(rng, level),) if value - a >= 1]
        options += [("*", m) for m in (rng.randint(2, 4),) if value * m <= limit]
        options += [("/", d) for d in (2, 3, 4) if value % d == 0 and value > d]
        op, operand = rng.choice(options or [("-", 1)])
        verb = {"+": "finds {}", "-": "loses {}", "*": "gets {} times as many", "/": "keeps one of {} equal parts"}
        events.append(verb[op].format(operand))
        value = steps(value, op, operand)
        formula = f"({formula}) {op} {operand}"
    question = f"{name} has {start} {thing}. {name} {', then '.join(events)}. How many {thing} are left?"
    return _problem(question, steps, value, formula)


def prealgebra_shopping(rng: random.Random, level: int) -> Problem:
    """The cost of several things, paid with a note at higher levels."""
    wares = rng.sample(("pens", "cups", "hats", "maps"), 2 if level < 4 else 3)
    counts = [rng.randint(2, (3, 3, 4, 4, 5)[level - 1]) for _ in wares]
    prices = [rng.randint(2, (4, 5, 5, 5, 6)[level - 1]) for _ in wares]
    steps = _Steps()
    costs = [steps(c, "*", p, label=w) for w, c, p in zip(wares, counts, prices, strict=True)]
    total = costs[0]
    for cost in costs[1:]:
        total = steps(total, "+", cost)
    bought = " and ".join(f"{c} {w} at {p}" for w, c, p in zip(wares, counts, prices, strict=True))
    formula = " + ".join(f"{c}*{p}" for c, p in zip(counts, prices, strict=True))
    if level % 2 == 0:
        return _problem(f"What is the total cost of {bought} dollars each?", steps, total, formula)
    paid = total + _term(rng, level)
    change = steps(paid, "-", total, label="change")
    question = f"You buy {bought} dollars each and pay {paid} dollars. How much change do you get?"
    return _problem(question, steps, change, f"{paid} - ({formula})")


def algebra_linear(rng: random.Random, level: int) -> Problem:
    """A linear equation, with the unknown on both sides from level 3 and brackets from level 4."""
    steps = _Steps()
    x = rng.randint(2, (5, 6, 7, 6, 8)[level - 1])
    a = rng.randint(2, (3, 4, 4, 4, 5)[level - 1])
    b = _term(rng, level)
    if level < 3:
        c = a * x + b
        x = steps(steps(c, "-", b), "/", a)
        return _problem(f"Solve {a}x+{b}={c} for x.", steps, x, f"solve({a}*x + {b} - {c}, x)[0]")
    c = a + rng.randint(1, 3)
    if level == 3:
        d = (c - a) * x + b
        slope = steps(c, "-", a)
        x = steps(steps(d, "-", b), "/", slope)
        question = f"Solve {c}x+{b}={a}x+{d} for x."
        return _problem(question, steps, x, f"solve({c}*x + {b} - {a}*x - {d}, x)[0]")
    e = rng.randint(2, 4)
    d = c * (x + e) + b - a * x
    constant = steps(steps(c, "*", e), "+", b)
    slope = steps(c, "-", a)
    x = steps(steps(d, "-", constant), "/", slope)
    question = f"Solve {c}(x+{e})+{b}={a}x+{d} for x."
    return _problem(question, steps, x, f"solve({c}*(x + {e}) + {b} - {a}*x - {d}, x)[0]")


def algebra_function(rng: random.Random, level: int) -> Problem:
    """A linear function applied once, twice or three times."""
    a = rng.randint(2, 3) if level < 3 else 2
    b, start = rng.randint(1, (6, 8, 6, 8, 6)[level - 1]), rng.randint(1, 5)
    times = (1, 1, 2, 2, 3)[level - 1]
    steps, value, formula = _Steps(), start, str(start)
    for _ in range(times):
        value = steps(steps(a, "*", value), "+", b)
        formula = f"{a}*({formula}) + {b}"
    f = rng.choice(_FUNCTIONS)
    call = f"{f}(" * times + str(start) + ")" * times
    return _problem(f"If {f}(x)={a}x+{b}, what is {call}?", steps, value, formula)


def number_theory_remainder(rng: random.Random, level: int) -> Problem:
    """The remainder of a sum or a product."""
    m = rng.randint(3, (5, 6, 7, 7, 9)[level - 1])
    a, b, c = _factor(rng, level), _factor(rng, level), _term(rng, level)
    steps = _Steps()
    if level == 1:
        r = steps(steps(a, "+", c), "mod", m)
        return _problem(f"Find the remainder when {a}+{c} is divided by {m}.", steps, r, f"Mod({a} + {c}, {m})")
    value, text = steps(a, "*", b), f"{a}*{b}"
    if level >= 3:
        value, text = steps(value, "+", c), f"{text}+{c}"
    if level >= 4:
        d = _term(rng, level)
        value, text = steps(value, "+", d), f"{text}+{d}"
    r = steps(value, "mod", m)
    return _problem(f"Find the remainder when {text} is divided by {m}.", steps, r, f"Mod({text}, {m})")


def number_theory_gcd(rng: random.Random, level: int) -> Problem:
    """A greatest common divisor by Euclid's algorithm; levels differ in its length and in the numbers' size."""
    largest = (14, 18, 24, 30, 40)[level - 1]
    wanted = (1, 2, 2, 3, 4)[level - 1]
    while True:
        a, b = rng.randint(4, largest), rng.randint(2, largest)
        a, b = max(a, b), min(a, b)
        steps, u, v = _Steps(), a, b
        while v:
            u, v = v, steps(u, "mod", v)
        if a > b and len(steps.lines) == wanted:
            break
    one, other = rng.sample(_THINGS, 2)
    question = f"{a} {one} and {b} {other} are shared out equally. What is the largest possible number of people?"
    return _problem(question, steps, u, f"gcd({a}, {b})")


def counting_choices(rng: random.Random, level: int) -> Problem:
    """Choices multiplied, or two groups of choices added."""
    wares = rng.sample(("shirts", "hats", "ties", "bags", "rings", "shoes"), 4)
    top = (5, 4, 4, 5, 6)[level - 1]
    n = [rng.randint(2, top) for _ in range(4)]
    steps = _Steps()
    if level < 4:
        k = 2 if level == 1 else 3
        value = n[0]
        for other in n[1:k]:
            value = steps(value, "*", other)
        listed = ", ".join(f"{c} {w}" for c, w in zip(n[:k], wares[:k], strict=True))
        formula = "*".join(map(str, n[:k]))
        return _problem(f"In how many ways can you pick one of each from {listed}?", steps, value, formula)
    left, right = steps(n[0], "*", n[1]), steps(n[2], "*", n[3])
    value = steps(left, "+", right)
    question = (
        f"You pick either one of {n[0]} {wares[0]} and one of {n[1]} {wares[1]}, or one of {n[2]} {wares[2]} "
        f"and one of {n[3]} {wares[3]}. How many ways are there?"
    )
    return _problem(question, steps, value, f"{n[0]}*{n[1]} + {n[2]}*{n[3]}")


def counting_pairs(rng: random.Random, level: int) -> Problem:
    """Pairs within one group, or of one colour within several groups."""
    groups = (1, 1, 2, 2, 3)[level - 1]
    n = [rng.randint(3, (6, 8, 6, 7, 7)[level - 1]) for _ in range(groups)]
    colours = rng.sample(("red", "blue", "green", "white"), groups)
    steps = _Steps()
    total = 0
    for i, size in enumerate(n):
        pairs = steps(steps(size, "*", steps(size, "-", 1)), "/", 2)
        total = steps(total, "+", pairs) if i else pairs
    formula = " + ".join(f"binomial({size}, 2)" for size in n)
    if groups == 1:
        name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
        question = f"{name} has {n[0]} different {thing}. How many pairs of {thing} are there?"
        return _problem(question, steps, total, formula)
    listed = " and ".join(f"{size} {c}" for size, c in zip(n, colours, strict=True))
    return _problem(f"From {listed} balls, how many pairs have one colour?", steps, total, formula)


def geometry_rectangle(rng: random.Random, level: int) -> Problem:
    """A perimeter, or the area of a rectangle less what is cut out."""
    steps = _Steps()
    place = rng.choice(_PLACES)
    if level % 2:
        top = (8, 0, 8, 0, 12)[level - 1]
        w, h = rng.randint(2, top), rng.randint(2, top)
        value = steps(2, "*", steps(w, "+", h))
        if level == 1:
            return _problem(f"A {place} is {w} by {h}. What is its perimeter?", steps, value, f"2*({w} + {h})")
        cost = rng.randint(2, 3)
        value = steps(value, "*", cost, label="cost")
        question = f"A fence around a {w} by {h} {place} costs {cost} dollars a metre. What does it cost?"
        return _problem(question, steps, value, f"2*({w} + {h})*{cost}")
    top = 6 if level == 2 else 8
    w, h = rng.randint(3, top), rng.randint(3, top)
    area = steps(w, "*", h)
    holes = [(rng.randint(1, w // 2), rng.randint(1, h // 2)) for _ in range(1 if level == 2 else 2)]
    formula = f"{w}*{h}"
    for u, v in holes:
        formula += f" - {u}*{v}"
        area = steps(area, "-", steps(u, "*", v))
    cut = " and ".join(f"a {u} by {v} corner" for u, v in holes)
    return _problem(f"A {place} of {w} by {h} loses {cut}. What area is left?", steps, area, formula)


def geometry_box(rng: random.Random, level: int) -> Problem:
    """The volume or the surface of a box."""
    top = (3, 4, 3, 4, 5)[level - 1]
    a, b, c = (rng.randint(2, top) for _ in range(3))
    box = rng.choice(_BOXES)
    steps = _Steps()
    if level < 3:
        volume = steps(steps(a, "*", b), "*", c)
        return _problem(f"What is the volume of a {a} by {b} by {c} {box}?", steps, volume, f"{a}*{b}*{c}")
    faces = [steps(a, "*", b), steps(b, "*", c), steps(a, "*", c)]
    half = steps(steps(faces[0], "+", faces[1]), "+", faces[2])
    surface = steps(2, "*", half)
    question = f"What is the surface area of a {a} by {b} by {c} {box}?"
    return _problem(question, steps, surface, f"2*({a}*{b} + {b}*{c} + {a}*{c})")


def intermediate_polynomial(rng: random.Random, level: int) -> Problem:
    """A polynomial evaluated by Horner's rule."""
    degree = (1, 2, 2, 3, 4)[level - 1]
    x = rng.randint(2, (5, 3, 4, 3, 2)[level - 1])
    coefficients = [rng.randint(1, (6, 3, 4, 3, 4)[level - 1]) for _ in range(degree + 1)]
    steps, value = _Steps(), coefficients[0]
    for c in coefficients[1:]:
        value = steps(steps(value, "*", x), "+", c)
    powers = [f"{c}" + ("" if k == 0 else "x" if k == 1 else f"x^{k}") for k, c in enumerate(reversed(coefficients))]
    formula = " + ".join(f"{c}*{x}**{k}" for k, c in enumerate(reversed(coefficients)))
    f = rng.choice(_FUNCTIONS)
    question = f"If {f}(x)={'+'.join(reversed(powers))}, what is {f}({x})?"
    return _problem(question, steps, value, formula)


def intermediate_sequence(rng: random.Random, level: int) -> Problem:
    """A term, or at higher levels a sum, of an arithmetic sequence."""
    first, gap = rng.randint(1, (6, 8, 10, 6, 6)[level - 1]), rng.randint(2, (3, 4, 5, 4, 4)[level - 1])
    steps = _Steps()
    shown = f"{first}, {first + gap}, {first + 2 * gap}"
    if level < 4:
        n = rng.randint(4, (5, 6, 8)[level - 1])
        last = steps(first, "+", steps(steps(n, "-", 1), "*", gap))
        question = f"What is term {n} of the sequence {shown}, ...?"
        return _problem(question, steps, last, f"{first} + ({n} - 1)*({first + gap} - {first})")
    n = level
    total = term = first
    for _ in range(n - 1):
        term = steps(term, "+", gap)
        total = steps(total, "+", term)
    question = f"What is the sum of the first {n} terms of {shown}, ...?"
    return _problem(question, steps, total, f"summation({first} + k*({first + gap} - {first}), (k, 0, {n} - 1))")


def precalculus_dot(rng: random.Random, level: int) -> Problem:
    """A dot product in two or three dimensions."""
    size = 2 if level < 4 else 3
    top = (4, 5, 6, 5, 6)[level - 1]
    u, v = ([rng.randint(1, top) for _ in range(size)] for _ in range(2))
    steps = _Steps()
    products = [steps(a, "*", b) for a, b in zip(u, v, strict=True)]
    total = products[0]
    for p in products[1:]:
        total = steps(total, "+", p)
    question = f"Find the dot product of ({', '.join(map(str, u))}) and ({', '.join(map(str, v))})."
    return _problem(question, steps, total, " + ".join(f"{a}*{b}" for a, b in zip(u, v, strict=True)))


def precalculus_determinant(rng: random.Random, level: int) -> Problem:
    """A two-by-two determinant, scaled or added to another at higher levels."""
    top = (4, 5, 6, 5, 6)[level - 1]
    while True:
        a, b, c, d = (rng.randint(1, top) for _ in range(4))
        if a * d >= b * c:
            break
    steps = _Steps()
    value = steps(steps(a, "*", d), "-", steps(b, "*", c))
    matrix = f"[{a} {b}; {c} {d}]"
    formula = f"det(Matrix([[{a}, {b}], [{c}, {d}]]))"
    if level < 4:
        return _problem(f"Find the determinant of {matrix}.", steps, value, formula)
    k, e = rng.randint(2, 3), _term(rng, level)
    value = steps(steps(k, "*", value), "+", e)
    return _problem(f"Find {k} times the determinant of {matrix}, plus {e}.", steps, value, f"{k}*{formula} + {e}")


TEMPLATES: dict[str, tuple[Callable[[random.Random, int], Problem], ...]] = {
    "prealgebra": (prealgebra_story, prealgebra_shopping),
    "algebra": (algebra_linear, algebra_function),
    "number_theory": (number_theory_remainder, number_theory_gcd),
    "counting_and_probability": (counting_choices, counting_pairs),
    "geometry": (geometry_rectangle, geometry_box),
    "intermediate_algebra": (intermediate_polynomial, intermediate_sequence),
    "precalculus": (precalculus_dot, precalculus_determinant),
}
"""Subject to its templates, each `(rng, level) -> Problem`."""
