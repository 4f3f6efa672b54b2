"""Search families whose guess is a way: doors from room to room, moves between numbers, numbers that add up."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence

from ttcjax.data.procmath.family import Attempt, Family, Guess, Puzzle, numbers_of, verdict_of


class Doors(Family):
    """Rooms with doors that open one way: several lead out of the first, and one of them on to the last.

    Behind the first door there is nothing to choose, so what fails rules out a door. Among k doors the first attempt is
    right in 1 / k without a look ahead, and after j that failed 1 / (k - j). A level has more doors or longer ways.
    """

    name = "doors"
    pattern = re.compile(r"Doors lead \d+-\d+(?: \d+-\d+)*: from \d+ to \d+\?")

    def draw(self, rng: random.Random, level: int) -> Puzzle:
        width, depth = ((2, 2), (3, 2), (3, 3), (4, 3), (5, 3))[level - 1]
        start, *rooms = rng.sample(range(1, 31), 1 + width * depth)
        ways = [(start, *rooms[i * depth : (i + 1) * depth]) for i in range(width)]
        doors = [door for way in ways for door in itertools.pairwise(way)]
        rng.shuffle(doors)
        return Puzzle((start, rng.choice(ways)[-1]), tuple(doors))

    def ask(self, puzzle: Puzzle) -> str:
        start, goal = puzzle.numbers
        return f"Doors lead {' '.join(f'{a}-{b}' for a, b in puzzle.listed)}: from {start} to {goal}?"

    def read(self, question: str) -> Puzzle:
        *doors, start, goal = numbers_of(question)
        return Puzzle((start, goal), tuple(zip(doors[::2], doors[1::2], strict=True)))

    def guesses(self, puzzle: Puzzle) -> list[Guess]:
        return [(b,) for a, b in puzzle.listed if a == puzzle.numbers[0]]

    def attempt(self, puzzle: Puzzle, guess: Guess) -> Attempt:
        start, goal = puzzle.numbers
        leads, way = dict(puzzle.listed), [start, *guess]
        while way[-1] in leads and way[-1] != goal:
            way.append(leads[way[-1]])
        lines = [f"{a}-{b}" for a, b in itertools.pairwise(way)]
        return Attempt(tuple(lines[:1]), tuple(lines[1:]), way[-1], goal, tuple(way[1:]))

    def check(self, puzzle: Puzzle, lines: Sequence[str]) -> list[bool]:
        """A door is true where it is one of the question's and leads on from where the attempt stands."""
        room, truths = puzzle.numbers[0], []
        for line in lines:
            match = re.fullmatch(r"(\d{1,6})-(\d{1,6})", line.strip())
            if match:
                door = int(match[1]), int(match[2])
                truths.append(door in puzzle.listed and door[0] == room)
                room = door[1]
            else:
                truths.append(_ends(line, room, puzzle.numbers[1]))
        return truths


class Reach(Family):
    """A number reached from another by a given number of moves, each of one of two kinds.

    Every line of an attempt is true, and where it ends is told by its last one only. A level has one move more.
    """

    name = "reach"
    pattern = re.compile(r"From \d+ reach \d+ in \d+ moves, \+\d+ or \*\d+\. Which numbers are on the way\?")

    def draw(self, rng: random.Random, level: int) -> Puzzle:
        start, plus, moves = rng.randint(2, 12 if level < 3 else 7), rng.randint(1, 12), level + 1
        guess = tuple(rng.randint(0, 1) for _ in range(moves))
        end = self._way(start, plus, guess)[-1]
        return Puzzle((start, end, moves, plus, 2)) if end < 100 else Puzzle((0, 0, 2, 0, 2))

    def ask(self, puzzle: Puzzle) -> str:
        start, goal, moves, plus, times = puzzle.numbers
        return f"From {start} reach {goal} in {moves} moves, +{plus} or *{times}. Which numbers are on the way?"

    def read(self, question: str) -> Puzzle:
        return Puzzle(numbers_of(question))

    @staticmethod
    def _way(start: int, plus: int, guess: Guess) -> list[int]:
        way = [start]
        for double in guess:
            way.append(way[-1] * 2 if double else way[-1] + plus)
        return way

    def guesses(self, puzzle: Puzzle) -> list[Guess]:
        start, _, moves, plus, _ = puzzle.numbers
        every = itertools.product((0, 1), repeat=moves)
        return [guess for guess in every if self._way(start, plus, guess)[-1] < 100]

    def attempt(self, puzzle: Puzzle, guess: Guess) -> Attempt:
        start, goal, _, plus, _ = puzzle.numbers
        way = self._way(start, plus, guess)
        lines = [
            f"{a}*2={b}" if double else f"{a}+{plus}={b}"
            for double, (a, b) in zip(guess, itertools.pairwise(way), strict=True)
        ]
        return Attempt(tuple(lines), (), way[-1], goal, tuple(way[1:]))

    def check(self, puzzle: Puzzle, lines: Sequence[str]) -> list[bool]:
        """A move is true where it is allowed, right, not one too many, and goes on from the number before."""
        start, goal, moves, plus, times = puzzle.numbers
        at, left, truths = start, moves, []
        for line in lines:
            match = re.fullmatch(r"(\d{1,6})([+*])(\d{1,6})=(\d{1,6})", line.strip())
            if match:
                a, number, result = int(match[1]), int(match[3]), int(match[4])
                allowed, value = (plus, a + number) if match[2] == "+" else (times, a * number)
                truths.append(a == at and number == allowed and value == result and left > 0)
                at, left = result, left - 1
            else:
                truths.append(left == 0 and _ends(line, at, goal))
        return truths


class Subset(Family):
    """Some of the listed numbers that add up to a sum.

    What fails tells by how much: the next attempt may keep most of its numbers and change one. A level has more
    choices.
    """

    name = "subset"
    pattern = re.compile(r"Which \d+ of (?:\d+, )+\d+ add up to \d+, in this order\?")

    def draw(self, rng: random.Random, level: int) -> Puzzle:
        many, few = ((4, 2), (5, 2), (6, 2), (6, 3), (7, 3))[level - 1]
        numbers = sorted(rng.sample(range(2, 31), many))
        return Puzzle((few, *numbers, sum(rng.sample(numbers, few))))

    def ask(self, puzzle: Puzzle) -> str:
        few, *numbers, total = puzzle.numbers
        return f"Which {few} of {', '.join(map(str, numbers))} add up to {total}, in this order?"

    def read(self, question: str) -> Puzzle:
        return Puzzle(numbers_of(question))

    def guesses(self, puzzle: Puzzle) -> list[Guess]:
        few, *numbers, _ = puzzle.numbers
        return list(itertools.combinations(numbers, few))

    def attempt(self, puzzle: Puzzle, guess: Guess) -> Attempt:
        sums = list(itertools.accumulate(guess))
        lines = [f"{a}+{b}={c}" for (a, c), b in zip(itertools.pairwise(sums), guess[1:], strict=True)]
        return Attempt(tuple(lines), (), sums[-1], puzzle.numbers[-1], guess)

    def informed(self, puzzle: Puzzle, tried: Sequence[Guess]) -> list[Guess]:
        """Return the untried guesses that change one number of the last in the direction it tells; all if none does."""
        left = super().informed(puzzle, tried)
        if not tried:
            return left
        last, total = tried[-1], puzzle.numbers[-1]
        mended = [g for g in left if len({*g} & {*last}) == len(g) - 1 and (sum(g) > sum(last)) == (sum(last) < total)]
        return mended or left

    def check(self, puzzle: Puzzle, lines: Sequence[str]) -> list[bool]:
        """A sum is true where it is right, adds a listed number not added before, and goes on from the sum before."""
        few, *numbers, total = puzzle.numbers
        at, used, truths = None, set(), []
        for line in lines:
            match = re.fullmatch(r"(\d{1,6})\+(\d{1,6})=(\d{1,6})", line.strip())
            if match:
                a, b, result = map(int, match.groups())
                taken = {a, b} if at is None else {b}
                allowed = taken <= {*numbers} and not taken & used and len(used | taken) <= few
                goes_on = a < b if at is None else a == at
                truths.append(allowed and goes_on and a + b == result)
                at, used = result, used | taken
            else:
                truths.append(at is not None and len(used) == few and _ends(line, at, total))
        return truths


def _ends(line: str, at: int, goal: int) -> bool:
    """Return whether a line is the verdict of an attempt that ended at a number."""
    found = verdict_of(line)
    return found is not None and found[:2] == (at, goal)
