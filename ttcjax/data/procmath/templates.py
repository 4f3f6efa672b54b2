"""The question templates: each draws numbers for a level and returns question, steps, answer and formula.

These are derivations: there is one way, each step follows from those before, and to check a step costs what writing it
costs. What makes a level harder is the number of steps. Numbers stay small on purpose: then the sums, products and
remainders behind all questions are a few hundred facts, which models of this size can learn both to use and to judge,
and what is hard is to get through many steps without a slip. An answer names the result of every step, since one small
number would be right by luck too often.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

MAX_VALUE = 32
"""Largest result of any step; `draw` takes other numbers where a template comes out above."""

ASKED = "Name each result."
"""Ends every question of this kind, and says what its answer must name."""

_OPS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}
_NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn")
_THINGS = ("coins", "cards", "books", "shells")
_WARES = ("shirts", "hats", "ties", "bags", "rings", "shoes")
_PLACES = ("garden", "room", "field", "yard", "court", "park")
_BOXES = ("box", "crate", "tank", "brick", "case", "block")
_FUNCTIONS = ("f", "g", "h", "p", "q", "r")


@dataclass(frozen=True)
class Problem:
    """A question with its derivation and, apart from it, a formula for the answer."""

    question: str
    steps: tuple[str, ...]
    results: tuple[int, ...]
    """Result of every step, which the answer names."""
    formula: str
    """A sympy expression built from the question's numbers alone; tests compare it with the last result."""

    @property
    def answer(self) -> str:
        return ", ".join(map(str, self.results))


class _OutOfRange(Exception):
    """A step's result is negative or above `MAX_VALUE`."""


class _Steps:
    """Collects a derivation; every result is computed here, so text and numbers cannot part."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.results: list[int] = []

    def __call__(self, a: int, op: str, b: int, label: str = "") -> int:
        if op == "/" and a % b:
            raise ValueError(f"{a} / {b} is not whole")
        result = _OPS[op](a, b)
        if not 0 <= result <= MAX_VALUE:
            raise _OutOfRange
        self.results.append(result)
        self.lines.append(f"{label + ': ' if label else ''}{a}{op if op != 'mod' else ' mod '}{b}={result}")
        return result

    def total(self, terms: list[int]) -> int:
        """Add terms one by one."""
        value = terms[0]
        for term in terms[1:]:
            value = self(value, "+", term)
        return value


def _problem(question: str, steps: _Steps, formula: str, *found: int) -> Problem:
    """Put the parts together; `found` is what the last step leaves to be said, where that is not its result."""
    return Problem(f"{question} {ASKED}", tuple(steps.lines), (*steps.results, *found), formula)


def _next_event(rng: random.Random, value: int) -> tuple[str, int]:
    """Draw an operation and its operand that take `value` to another small number above 0."""
    a = rng.randint(2, 9)
    options = [("+", a)] if value + a <= MAX_VALUE else []
    options += [("-", a)] if value - a >= 1 else []
    options += [("*", m) for m in (2, 3) if 0 < value * m <= MAX_VALUE // 2]
    options += [("/", d) for d in (2, 3) if value % d == 0 and value > d]
    return rng.choice(options or [("-", 1)])


def prealgebra_story(rng: random.Random, level: int) -> Problem:
    """A count that grows and shrinks."""
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    value = start = rng.randint(2, 15)
    steps, events, formula = _Steps(), [], str(start)
    verb = {"+": "finds {}", "-": "loses {}", "*": "gets {} times as many", "/": "keeps one of {} equal parts"}
    for _ in range((2, 3, 4, 6, 8)[level - 1]):
        op, operand = _next_event(rng, value)
        events.append(verb[op].format(operand))
        value = steps(value, op, operand)
        formula = f"({formula}) {op} {operand}"
    question = f"{name} has {start} {thing}. {name} {', then '.join(events)}. How many {thing} are left?"
    return _problem(question, steps, formula)


def prealgebra_shopping(rng: random.Random, level: int) -> Problem:
    """The cost of several things, paid with more than that at odd levels."""
    wares = rng.sample(("pens", "cups", "hats", "maps", "toys"), (2, 2, 2, 3, 3)[level - 1])
    counts, prices = ([rng.randint(2, 9 if level < 4 else 5) for _ in wares] for _ in range(2))
    steps = _Steps()
    total = steps.total([steps(c, "*", p, label=w) for w, c, p in zip(wares, counts, prices, strict=True)])
    bought = " and ".join(f"{c} {w} at {p}" for w, c, p in zip(wares, counts, prices, strict=True))
    formula = " + ".join(f"{c}*{p}" for c, p in zip(counts, prices, strict=True))
    if level % 2 == 0:
        return _problem(f"What is the total cost of {bought} dollars each?", steps, formula)
    paid = rng.randint(total, MAX_VALUE)
    steps(paid, "-", total, label="change")
    question = f"You buy {bought} dollars each and pay {paid} dollars. How much change do you get?"
    return _problem(question, steps, f"{paid} - ({formula})")


def algebra_linear(rng: random.Random, level: int) -> Problem:
    """A linear equation, with the unknown on both sides from level 3 and brackets from level 4."""
    steps = _Steps()
    x, a, b = rng.randint(2, 9), rng.randint(2, 6), rng.randint(1, 9)
    if level < 3:
        c = a * x + b
        x = steps(steps(c, "-", b), "/", a)
        return _problem(f"Solve {a}x+{b}={c} for x.", steps, f"solve({a}*x + {b} - {c}, x)[0]")
    c = a + rng.randint(1, 3)
    if level == 3:
        d = (c - a) * x + b
        slope = steps(c, "-", a)
        x = steps(steps(d, "-", b), "/", slope)
        question = f"Solve {c}x+{b}={a}x+{d} for x."
        return _problem(question, steps, f"solve({c}*x + {b} - {a}*x - {d}, x)[0]")
    e = rng.randint(1, 3)
    left = steps(steps(c, "*", e), "+", b)
    slope = steps(c, "-", a)
    if level == 4:
        d = slope * x + left
        x = steps(steps(d, "-", left), "/", slope)
        question = f"Solve {c}(x+{e})+{b}={a}x+{d} for x."
        return _problem(question, steps, f"solve({c}*(x + {e}) + {b} - {a}*x - {d}, x)[0]")
    f = rng.randint(1, 3)
    right = steps(a, "*", f)
    d = slope * x + left - right
    if d < 0:
        raise _OutOfRange
    x = steps(steps(steps(right, "+", d), "-", left), "/", slope)
    question = f"Solve {c}(x+{e})+{b}={a}(x+{f})+{d} for x."
    return _problem(question, steps, f"solve({c}*(x + {e}) + {b} - {a}*(x + {f}) - {d}, x)[0]")


def algebra_function(rng: random.Random, level: int) -> Problem:
    """A linear function, applied in turns with a shift at higher levels: one to five calls."""
    calls = (1, 1, 2, 3, 5)[level - 1]
    a, b, c, start = rng.randint(2, 5 if calls == 1 else 2), rng.randint(1, 12), rng.randint(1, 9), rng.randint(2, 9)
    sign, shift = rng.choice("+-"), rng.choice("+-")
    f, g = rng.sample(_FUNCTIONS, 2)
    steps, value, formula, call = _Steps(), start, str(start), str(start)
    for number in range(calls):
        if number % 2:
            value, formula, call = steps(value, shift, c), f"({formula}) {shift} {c}", f"{g}({call})"
        else:
            value = steps(steps(a, "*", value), sign, b)
            formula, call = f"{a}*({formula}) {sign} {b}", f"{f}({call})"
    other = f" and {g}(x)=x{shift}{c}" if calls > 1 else ""
    return _problem(f"If {f}(x)={a}x{sign}{b}{other}, what is {call}?", steps, formula)


def number_theory_remainder(rng: random.Random, level: int) -> Problem:
    """The remainder of a sum of products."""
    m = rng.randint(3, 9)
    steps, terms, texts = _Steps(), [], []
    products, singles = ((0, 2), (1, 0), (1, 1), (2, 1), (3, 1))[level - 1]
    for _ in range(products):
        a, b = (rng.randint(2, 7 if products == 1 else 4) for _ in range(2))
        terms.append(steps(a, "*", b))
        texts.append(f"{a}*{b}")
    for _ in range(singles):
        terms.append(rng.randint(2, 15 if level == 1 else 9))
        texts.append(str(terms[-1]))
    text = "+".join(texts)
    steps(steps.total(terms), "mod", m)
    return _problem(f"Find the remainder when {text} is divided by {m}.", steps, f"Mod({text}, {m})")


def number_theory_gcd(rng: random.Random, level: int) -> Problem:
    """A greatest common divisor by Euclid's algorithm; a level is its number of divisions."""
    while True:
        a, b = rng.randint(3, MAX_VALUE), rng.randint(2, MAX_VALUE)
        a, b = max(a, b), min(a, b)
        steps, u, v = _Steps(), a, b
        while v:
            u, v = v, steps(u, "mod", v)
        if a > b and len(steps.lines) == min(level, 4):
            break
    one, other = rng.sample(_THINGS, 2)
    question = f"{a} {one} and {b} {other} are shared out equally. What is the largest possible number of people?"
    return _problem(question, steps, f"gcd({a}, {b})", u)


def counting_choices(rng: random.Random, level: int) -> Problem:
    """Choices multiplied, then added to others."""
    steps = _Steps()
    if level < 3:
        wares = rng.sample(_WARES, level + 2)
        n = [rng.randint(2, 9 if level == 1 else 6) for _ in wares[:-1]]
        value, other = n[0], rng.randint(2, 30)
        for more in n[1:]:
            value = steps(value, "*", more)
        steps(value, "+", other)
        listed = ", ".join(f"{c} {w}" for c, w in zip(n, wares, strict=False))
        question = f"In how many ways can you pick one of each from {listed}, or else one of {other} {wares[-1]}?"
        return _problem(question, steps, f"{'*'.join(map(str, n))} + {other}")
    pairs = [(rng.randint(2, 6 if level < 5 else 4), rng.randint(2, 6 if level < 5 else 4)) for _ in range(level - 1)]
    names = [rng.sample(_WARES, 2) for _ in pairs]
    steps.total([steps(u, "*", v) for u, v in pairs])
    listed = ", or ".join(f"{u} {a} and {v} {b}" for (u, v), (a, b) in zip(pairs, names, strict=True))
    formula = " + ".join(f"{u}*{v}" for u, v in pairs)
    return _problem(f"You pick one of each from {listed}. How many ways are there?", steps, formula)


def counting_pairs(rng: random.Random, level: int) -> Problem:
    """Pairs of one colour within one to three groups, beside some that are known."""
    groups = (1, 1, 2, 2, 3)[level - 1]
    n = [rng.randint(3, 8) for _ in range(groups)]
    colours = rng.sample(("red", "blue", "green", "white"), groups)
    steps = _Steps()
    pairs = [steps(steps(size, "*", size - 1), "/", 2) for size in n]
    total = steps.total(pairs)
    formula = " + ".join(f"binomial({size}, 2)" for size in n)
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    extra = rng.randint(1, 30)
    steps(total, "+", extra)
    listed = " and ".join(f"{size} {c}" for size, c in zip(n, colours, strict=True))
    question = f"{name} has {listed} {thing} and {extra} known pairs. How many pairs of one colour or known are there?"
    return _problem(question, steps, f"{formula} + {extra}")


def geometry_rectangle(rng: random.Random, level: int) -> Problem:
    """Perimeters, or the area of a rectangle less what is cut out."""
    steps = _Steps()
    place = rng.choice(_PLACES)
    if level % 2:
        sides = [(rng.randint(2, 9), rng.randint(2, 9)) for _ in range((1, 1, 2)[level // 2])]
        value = steps.total([steps(2, "*", steps(w, "+", h)) for w, h in sides])
        shapes = " and one of ".join(f"{w} by {h}" for w, h in sides)
        formula = " + ".join(f"2*({w} + {h})" for w, h in sides)
        gate = rng.randint(2, 20)
        steps(value, "-", gate)
        question = f"What fence does a {place} of {shapes} need beside a gate of {gate}?"
        return _problem(question, steps, f"{formula} - {gate}")
    w, h = rng.randint(3, 9), rng.randint(3, 9)
    area, formula = steps(w, "*", h), f"{w}*{h}"
    holes = [(rng.randint(1, max(1, w // 2)), rng.randint(1, max(1, h // 2))) for _ in range(level // 2)]
    for u, v in holes:
        formula += f" - {u}*{v}"
        area = steps(area, "-", steps(u, "*", v))
    cut = " and ".join(f"a {u} by {v} corner" for u, v in holes)
    return _problem(f"A {place} of {w} by {h} loses {cut}. What area is left?", steps, formula)


def geometry_box(rng: random.Random, level: int) -> Problem:
    """The rest of the volume of a box, of its edges, or of the three faces at a corner."""
    a, b, c = (rng.randint(2, 6 if level < 3 else 5) for _ in range(3))
    box = rng.choice(_BOXES)
    steps = _Steps()
    shape = f"a {a} by {b} by {c} {box}"
    if level < 3:
        volume = steps(steps(a, "*", b), "*", c)
        used = rng.randint(2, 20)
        left = steps(volume, "-", used)
        if level == 1:
            return _problem(f"What is left of the volume of {shape} less {used}?", steps, f"{a}*{b}*{c} - {used}")
        more = rng.randint(2, 9)
        steps(left, "+", more)
        question = f"The volume of {shape} loses {used} and gains {more}. What is it now?"
        return _problem(question, steps, f"{a}*{b}*{c} - {used} + {more}")
    if level == 3:
        height = rng.randint(2, 15)
        steps(steps(2, "*", steps(steps(a, "+", b), "+", c)), "-", height)
        question = f"Strings of {a}, {b} and {c} go twice around a {box}, {height} are cut off. What is left?"
        return _problem(question, steps, f"2*({a} + {b} + {c}) - {height}")
    value = steps.total([steps(a, "*", b), steps(b, "*", c), steps(a, "*", c)])
    formula = f"{a}*{b} + {b}*{c} + {a}*{c}"
    question = f"Three faces of {shape} meet at a corner. What is their area"
    if level == 4:
        used = rng.randint(2, 15)
        steps(value, "-", used)
        return _problem(f"{question} less {used}?", steps, f"{formula} - {used}")
    u, v = rng.randint(2, 5), rng.randint(2, 5)
    steps(value, "-", steps(u, "*", v))
    return _problem(f"{question} less a {u} by {v} window?", steps, f"{formula} - {u}*{v}")


def intermediate_polynomial(rng: random.Random, level: int) -> Problem:
    """A polynomial evaluated by Horner's rule."""
    degree = (1, 2, 2, 3, 4)[level - 1]
    x = rng.randint(2, 9 if degree == 1 else 3)
    top = 9 if degree < 3 else 3
    coefficients = [rng.randint(1, top), *((rng.choice("+-"), rng.randint(1, 9)) for _ in range(degree))]
    steps, value = _Steps(), coefficients[0]
    text, formula = f"{value}x^{degree}" if degree > 1 else f"{value}x", f"{value}*{x}**{degree}"
    for power, (sign, c) in zip(range(degree - 1, -1, -1), coefficients[1:], strict=True):
        value = steps(steps(value, "*", x), sign, c)
        text += f"{sign}{c}" + ("" if power == 0 else "x" if power == 1 else f"x^{power}")
        formula += f" {sign} {c}*{x}**{power}"
    f = rng.choice(_FUNCTIONS)
    return _problem(f"If {f}(x)={text}, what is {f}({x})?", steps, formula)


def intermediate_sequence(rng: random.Random, level: int) -> Problem:
    """A term, or at higher levels the sum of some terms, of an arithmetic sequence, less a number."""
    first, gap = rng.randint(1, 9 if level < 4 else 12), rng.randint(1, 9 if level < 4 else 6)
    less = rng.randint(1, 9)
    steps = _Steps()
    shown = f"{first}, {first + gap}, {first + 2 * gap}"
    if level < 4:
        n = rng.randint(4, (6, 7, 9)[level - 1])
        last = steps(first, "+", steps(steps(n, "-", 1), "*", gap))
        formula = f"{first} + ({n} - 1)*({first + gap} - {first})"
        if level == 1:
            return _problem(f"What is term {n} of the sequence {shown}, ...?", steps, formula)
        steps(last, "-", less)
        return _problem(f"What is term {n} of the sequence {shown}, ... less {less}?", steps, f"{formula} - {less}")
    n = level - 1
    total = term = first
    for _ in range(n - 1):
        term = steps(term, "+", gap)
        total = steps(total, "+", term)
    steps(total, "-", less)
    question = f"What is the sum of the first {n} terms of {shown}, ... less {less}?"
    formula = f"summation({first} + k*({first + gap} - {first}), (k, 0, {n} - 1)) - {less}"
    return _problem(question, steps, formula)


def precalculus_dot(rng: random.Random, level: int) -> Problem:
    """A dot product in two to four dimensions."""
    size = (2, 2, 3, 3, 4)[level - 1]
    u, v = ([rng.randint(1, 9 if size == 2 else 6) for _ in range(size)] for _ in range(2))
    steps = _Steps()
    steps.total([steps(a, "*", b) for a, b in zip(u, v, strict=True)])
    question = f"Find the dot product of ({', '.join(map(str, u))}) and ({', '.join(map(str, v))})."
    return _problem(question, steps, " + ".join(f"{a}*{b}" for a, b in zip(u, v, strict=True)))


def precalculus_determinant(rng: random.Random, level: int) -> Problem:
    """A two-by-two determinant, scaled or added to another at higher levels."""
    steps = _Steps()

    def determinant() -> tuple[int, str, str]:
        a, b, c, d = (rng.randint(1, 9 if level < 4 else 5) for _ in range(4))
        value = steps(steps(a, "*", d), "-", steps(b, "*", c))
        return value, f"[{a} {b}; {c} {d}]", f"det(Matrix([[{a}, {b}], [{c}, {d}]]))"

    value, matrix, formula = determinant()
    if level < 3:
        return _problem(f"Find the determinant of {matrix}.", steps, formula)
    if level < 5:
        k, e = rng.randint(2, 3), rng.randint(2, 9)
        value = steps(k, "*", value)
        if level == 3:
            return _problem(f"Find {k} times the determinant of {matrix}.", steps, f"{k}*{formula}")
        value = steps(value, "+", e)
        question = f"Find {k} times the determinant of {matrix}, plus {e}."
        return _problem(question, steps, f"{k}*{formula} + {e}")
    other, matrix2, formula2 = determinant()
    value = steps(value, "+", other)
    question = f"Find the sum of the determinants of {matrix} and {matrix2}."
    return _problem(question, steps, f"{formula} + {formula2}")


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


def draw(subject: str, level: int, rng: random.Random) -> Problem:
    """Draw one problem of a subject and level."""
    template = rng.choice(TEMPLATES[subject])
    while True:
        try:
            return template(rng, level)
        except _OutOfRange:
            continue
