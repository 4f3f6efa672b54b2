"""Search families whose guess is a number: a hidden pair, a remainder, exact change."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence

from ttcjax.data.procmath.family import Attempt, Guess, Puzzle, Tried, numbers_of


class Pair(Tried):
    """Two numbers with a sum, whose product is found from another number that it makes up with a third.

    What fails tells the direction: the product grows with the smaller number. A level has more pairs with the sum.
    """

    name = "pair"
    pattern = re.compile(
        r"Two numbers add up to \d+, their product and \d+ make \d+\. Which are they, the smaller first\?"
    )

    def draw(self, rng: random.Random, level: int) -> Puzzle:
        low, high = ((6, 11), (10, 13), (13, 16), (15, 18), (17, 20))[level - 1]
        total = rng.randint(low, high)
        small, more = rng.randint(1, total // 2), rng.randint(1, 13)
        return Puzzle((total, more, small * (total - small) + more))

    def ask(self, puzzle: Puzzle) -> str:
        total, more, made = puzzle.numbers
        return (
            f"Two numbers add up to {total}, their product and {more} make {made}. Which are they, the smaller first?"
        )

    def read(self, question: str) -> Puzzle:
        return Puzzle(numbers_of(question))

    def guesses(self, puzzle: Puzzle) -> list[Guess]:
        return [(n,) for n in range(1, puzzle.numbers[0] // 2 + 1)]

    def attempt(self, puzzle: Puzzle, guess: Guess) -> Attempt:
        total, more, made = puzzle.numbers
        (small,) = guess
        large = total - small
        product = small * large
        checks = (f"{total}-{small}={large}", f"{small}*{large}={product}", f"{product}+{more}={product + more}")
        return Attempt((f"try {small}",), checks, product + more, made, (small, large))

    def informed(self, puzzle: Puzzle, tried: Sequence[Guess]) -> list[Guess]:
        found = [(guess, self.attempt(puzzle, guess)) for guess in tried]
        above = max((guess[0] for guess, a in found if a.reached < a.wanted), default=0)
        below = min((guess[0] for guess, a in found if a.reached > a.wanted), default=puzzle.numbers[0])
        return [guess for guess in self.guesses(puzzle) if above < guess[0] < below]


class Residue(Tried):
    """The number of a range that leaves two remainders.

    Numbers with the first remainder are what one would try; each that fails is out. A level has more of them.
    """

    name = "residue"
    pattern = re.compile(r"Which number from \d+ to \d+ leaves \d+ by \d+ and \d+ by \d+\?")

    def draw(self, rng: random.Random, level: int) -> Puzzle:
        second = (3, 4, 5, 7, 9)[level - 1]
        first = rng.choice([m for m in range(4, 13) if math.gcd(m, second) == 1 and m * second <= 80])
        low = rng.randint(1, 99 - first * second)
        number = rng.randint(low, low + first * second - 1)
        return Puzzle((low, low + first * second - 1, number % first, first, number % second, second))

    def ask(self, puzzle: Puzzle) -> str:
        low, high, r, m, q, k = puzzle.numbers
        return f"Which number from {low} to {high} leaves {r} by {m} and {q} by {k}?"

    def read(self, question: str) -> Puzzle:
        return Puzzle(numbers_of(question))

    def guesses(self, puzzle: Puzzle) -> list[Guess]:
        low, high, r, m, *_ = puzzle.numbers
        return [(n,) for n in range(low, high + 1) if n % m == r]

    def attempt(self, puzzle: Puzzle, guess: Guess) -> Attempt:
        _, _, _, m, q, k = puzzle.numbers
        (n,) = guess
        return Attempt((f"try {n}",), (f"{n} mod {m}={n % m}", f"{n} mod {k}={n % k}"), n % k, q, (n,))


class Change(Tried):
    """A sum paid in two kinds of coins: how many of the first, and what is left for the second.

    Numbers that fail are out. A level has more numbers that the sum allows.
    """

    name = "change"
    pattern = re.compile(r"\d+ is paid in \d+s and \d+s\. How many \d+s, and what is left for the \d+s\?")

    def draw(self, rng: random.Random, level: int) -> Puzzle:
        width = (3, 4, 5, 6, 8)[level - 1]
        first = rng.randint(3, 14)
        second = rng.randint(width, width + 9)
        total = rng.randint(first * (width - 1), first * width - 1)
        if math.gcd(first, second) > 1 or first == second:
            return Puzzle((1, 1, 1))
        return Puzzle((total, first, second))

    def ask(self, puzzle: Puzzle) -> str:
        total, first, second = puzzle.numbers
        return f"{total} is paid in {first}s and {second}s. How many {first}s, and what is left for the {second}s?"

    def read(self, question: str) -> Puzzle:
        return Puzzle(numbers_of(question)[:3])

    def guesses(self, puzzle: Puzzle) -> list[Guess]:
        total, first, _ = puzzle.numbers
        return [(n,) for n in range(total // first + 1)]

    def attempt(self, puzzle: Puzzle, guess: Guess) -> Attempt:
        total, first, second = puzzle.numbers
        (n,) = guess
        left = total - n * first
        checks = (f"{n}*{first}={n * first}", f"{total}-{n * first}={left}", f"{left} mod {second}={left % second}")
        return Attempt((f"try {n}",), checks, left % second, 0, (n, left))
