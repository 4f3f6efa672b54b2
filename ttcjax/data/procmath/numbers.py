"""Search families whose guess is a number: a hidden pair, one of some numbers, coins of two kinds."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from ttcjax.data.procmath.family import Attempt, Guess, Puzzle, Tried, numbers_of


def between(family: Tried, puzzle: Puzzle, tried: Sequence[Guess], *, rises: bool) -> list[Guess]:
    """Return the guesses between those attempts that reached too little and too much.

    Args:
        family: Its guesses are single numbers.
        puzzle: The question.
        tried: Attempts that failed.
        rises: Whether what is reached grows with the guess; otherwise it falls.
    """
    found = [(guess, (a.reached < a.wanted) == rises) for guess in tried for a in [family.attempt(puzzle, guess)]]
    above = max((guess[0] for guess, low in found if low), default=-1)
    below = min((guess[0] for guess, low in found if not low), default=None)
    return [g for g in family.guesses(puzzle) if above < g[0] and (below is None or g[0] < below)]


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
        small, more = rng.randint(1, total // 2), rng.randint(1, 25)
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
        return between(self, puzzle, tried, rises=True)


class Residue(Tried):
    """The one of some numbers that leaves a remainder.

    What fails tells the next attempt, which is the number listed after it, or, after the last, the first. A level has
    more numbers.
    """

    name = "residue"
    pattern = re.compile(r"Which of \d+(?:, \d+)+ and \d+ leaves \d+ by \d+\?")

    def draw(self, rng: random.Random, level: int) -> Puzzle:
        numbers = rng.sample(range(10, 100), (3, 4, 5, 7, 9)[level - 1])
        divisor = rng.randint(4, 9)
        return Puzzle((*numbers, rng.choice(numbers) % divisor, divisor))

    def ask(self, puzzle: Puzzle) -> str:
        *numbers, last, rest, divisor = puzzle.numbers
        return f"Which of {', '.join(map(str, numbers))} and {last} leaves {rest} by {divisor}?"

    def read(self, question: str) -> Puzzle:
        return Puzzle(numbers_of(question))

    def guesses(self, puzzle: Puzzle) -> list[Guess]:
        return [(n,) for n in puzzle.numbers[:-2]]

    def attempt(self, puzzle: Puzzle, guess: Guess) -> Attempt:
        *_, rest, divisor = puzzle.numbers
        (n,) = guess
        return Attempt((f"try {n}",), (f"{n} mod {divisor}={n % divisor}",), n % divisor, rest, (n,))

    def informed(self, puzzle: Puzzle, tried: Sequence[Guess]) -> list[Guess]:
        """Return the one after the last attempt, of those not tried, or all where there was none."""
        order = self.guesses(puzzle)
        at = order.index(tried[-1]) + 1 if tried else 0
        left = [guess for guess in (*order[at:], *order[:at]) if guess not in tried]
        return left[:1] if tried else left

    def starts(self, puzzle: Puzzle, count: int) -> list[Guess]:
        order = self.guesses(puzzle)
        return [order[(order.index(self.right(puzzle)) - min(count, len(order) - 1)) % len(order)]]


class Coins(Tried):
    """So many coins of two kinds and what they are worth together: how many are there of each?

    What fails tells the direction, and by how much: to change one coin for another changes the worth by a known sum. A
    level has more coins.
    """

    name = "coins"
    pattern = re.compile(r"\d+ coins, \d+s and \d+s, are worth \d+\. How many \d+s and \d+s\?")

    def draw(self, rng: random.Random, level: int) -> Puzzle:
        count = rng.choice(((2, 3), (3, 4), (5, 6), (6, 7), (8, 9))[level - 1])
        first, second = rng.sample(range(2, 12), 2)
        number = rng.randint(0, count)
        worth = number * first + (count - number) * second
        return Puzzle((count, first, second, worth)) if worth < 100 else Puzzle((0, 1, 1, 0))

    def ask(self, puzzle: Puzzle) -> str:
        count, first, second, worth = puzzle.numbers
        return f"{count} coins, {first}s and {second}s, are worth {worth}. How many {first}s and {second}s?"

    def read(self, question: str) -> Puzzle:
        return Puzzle(numbers_of(question)[:4])

    def guesses(self, puzzle: Puzzle) -> list[Guess]:
        return [(n,) for n in range(puzzle.numbers[0] + 1)]

    def attempt(self, puzzle: Puzzle, guess: Guess) -> Attempt:
        count, first, second, worth = puzzle.numbers
        (n,) = guess
        rest = count - n
        a, b = n * first, rest * second
        checks = (f"{count}-{n}={rest}", f"{n}*{first}={a}", f"{rest}*{second}={b}", f"{a}+{b}={a + b}")
        return Attempt((f"try {n}",), checks, a + b, worth, (n, rest))

    def informed(self, puzzle: Puzzle, tried: Sequence[Guess]) -> list[Guess]:
        _, first, second, _ = puzzle.numbers
        return between(self, puzzle, tried, rises=first > second)
