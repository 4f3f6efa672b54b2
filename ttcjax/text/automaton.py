"""Finite automata over the bytes of a text, which tell at every byte whether a match of a pattern ends there.

A pattern is a regular expression of characters, escapes, classes, groups, `|`, `*`, `+`, `?` and `{m,n}`, without
anchors, assertions, references and lazy repeats: it is read once, from left to right, and a match ends as soon as it
can. Characters outside ASCII stand for themselves; classes and the dot match those of ASCII alone, but for the dot and
negated classes directly before `*` or `+`, which match every character. So a text has the same matches by its bytes as
by its characters, also where it comes from bytes that are no UTF-8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ttcjax.runtime.errors import UserError

_ASCII = frozenset(range(128))
_HIGH = frozenset(range(128, 256))
_DIGITS = frozenset(b"0123456789")
_SPACES = frozenset(b" \t\n\r\f\v")
_WORD = frozenset(b for b in range(128) if chr(b).isalnum()) | {ord("_")}
_CLASSES = {
    "d": (_DIGITS, False),
    "s": (_SPACES, False),
    "w": (_WORD, False),
    "D": (_ASCII - _DIGITS, True),
    "S": (_ASCII - _SPACES, True),
    "W": (_ASCII - _WORD, True),
}
_CONTROLS = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11}
_MOST_STATES = 200
_MOST_REPEATS = 100
_MOST_PARTS = 2000


@dataclass(frozen=True)
class Automaton:
    """States and what a byte makes of them; state 0 is that before the first byte."""

    next: np.ndarray
    """`[states, 256]` int32."""
    ends: np.ndarray
    """`[states, 256]` bool: a match ends with the byte. The automaton is in state 0 then."""


class _Nfa:
    """A nondeterministic automaton under construction."""

    def __init__(self) -> None:
        self.empty: list[list[int]] = []
        """States reached without a byte, of each state."""
        self.moves: list[list[tuple[frozenset[int], int, bool]]] = []
        """Moves of each state: bytes, the state they lead to, whether they may be parts of any character."""

    def state(self) -> int:
        self.empty.append([])
        self.moves.append([])
        return len(self.empty) - 1

    def closure(self, states: frozenset[int]) -> frozenset[int]:
        seen, todo = set(states), list(states)
        while todo:
            for other in self.empty[todo.pop()]:
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return frozenset(seen)


class _Reader:
    """Reads a pattern into an automaton, by recursive descent; parts are (first state, last state)."""

    def __init__(self, pattern: str):
        self.pattern, self.at, self.nfa = pattern, 0, _Nfa()

    def fail(self, why: str) -> UserError:
        return UserError(f"the pattern of steps {self.pattern!r} cannot be used: {why}")

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        if self.at >= len(self.pattern):
            raise self.fail("it ends too early")
        self.at += 1
        return self.pattern[self.at - 1]

    def whole(self) -> tuple[int, int]:
        part = self.either()
        if self.at < len(self.pattern):
            raise self.fail(f"there is no group that the {self.peek()!r} at {self.at} ends")
        return part

    def either(self) -> tuple[int, int]:
        parts = [self.sequence()]
        while self.peek() == "|":
            self.take()
            parts.append(self.sequence())
        if len(parts) == 1:
            return parts[0]
        first, last = self.nfa.state(), self.nfa.state()
        for a, b in parts:
            self.nfa.empty[first].append(a)
            self.nfa.empty[b].append(last)
        return first, last

    def sequence(self) -> tuple[int, int]:
        if len(self.nfa.empty) > _MOST_PARTS:
            raise self.fail("its repeats within repeats are too many")
        first = last = self.nfa.state()
        while self.peek() not in ("", "|", ")"):
            a, b = self.repeated()
            self.nfa.empty[last].append(a)
            last = b
        return first, last

    def repeated(self) -> tuple[int, int]:
        start = self.at
        one = self.atom()
        end = self.at
        least, most = self.counts()
        if (least, most) == (1, 1):
            return self.built(one)
        first = last = self.nfa.state()
        for i in range(max(least, most or 0)):
            self.at = start
            # Of a class that may come any number of times, one time or more, all characters count.
            a, b = self.built(self.atom(), wide=most is None and least == 1)
            self.nfa.empty[last].append(a)
            if i >= least:
                self.nfa.empty[last].append(b)
            last = b
        if most is None:
            self.at = start
            a, b = self.built(self.atom(), wide=least <= 1)
            again = self.nfa.state()
            self.nfa.empty[last].append(again)
            self.nfa.empty[again].append(a)
            self.nfa.empty[b].append(again)
            last = again
        self.at = end
        self.counts()
        return first, last

    def counts(self) -> tuple[int, int | None]:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        found: tuple[int, int | None] = (1, 1)
        if self.peek() in simple and self.peek():
            found = simple[self.take()]
        elif self.peek() == "{":
            close = self.pattern.find("}", self.at)
            low, comma, high = self.pattern[self.at + 1 : close].partition(",")
            if close < 0 or not low.isdecimal() or (high and not high.isdecimal()):
                raise self.fail(f"{{m,n}} is expected at {self.at}; a brace that is meant is written \\{{")
            self.at = close + 1
            found = (int(low), int(high) if high else None if comma else int(low))
            if max(found[0], found[1] or 0) > _MOST_REPEATS or (found[1] is not None and found[1] < found[0]):
                raise self.fail(f"counts go up to {_MOST_REPEATS}, the lower one first")
        else:
            return found
        if self.peek() and self.peek() in "*+?{":
            raise self.fail("lazy, possessive and doubled repeats are not known: a match ends as soon as it can anyway")
        return found

    def atom(self) -> tuple[int, int] | tuple[frozenset[int], bool] | bytes:
        """Return a group's part, a class as (ASCII bytes, whether it is a negated one), or a character's bytes."""
        letter = self.take()
        if letter == "(":
            if self.peek() == "?":
                self.take()
                if self.take() != ":":
                    raise self.fail("of groups that begin with (? only (?: is known")
            part = self.either()
            if self.peek() != ")":
                raise self.fail("a group is not closed")
            self.take()
            return part
        if letter == "[":
            return self.members()
        if letter == ".":
            return _ASCII - {10}, True
        if letter == "\\":
            return self.escape()
        if letter in "^$":
            raise self.fail(f"{letter} is not known: write \\n for a line's end, \\{letter} for the character")
        if letter in "*+?{":
            raise self.fail(f"there is nothing to repeat before the {letter!r} at {self.at - 1}")
        return self.character(letter)

    def character(self, letter: str) -> bytes:
        if letter == "\ufffd" or "\ud800" <= letter <= "\udfff":
            raise self.fail("it has characters that stand for damaged text")
        return letter.encode()

    def escape(self) -> tuple[frozenset[int], bool] | bytes:
        letter = self.take()
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter in _CONTROLS:
            return bytes([_CONTROLS[letter]])
        if letter.isascii() and letter.isalnum():
            raise self.fail(f"\\{letter} is not known")
        return self.character(letter)

    def members(self) -> tuple[frozenset[int], bool]:
        negated = self.peek() == "^"
        if negated:
            self.take()
        found: set[int] = set()
        first, wide = True, False
        while self.peek() != "]" or first:
            one, first = self.member(), False
            if isinstance(one, frozenset):
                found |= one
                wide = wide or len(one) > 64  # \D, \S or \W
                continue
            if self.peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.take()
                last = self.member()
                if isinstance(last, frozenset) or last < one:
                    raise self.fail("a class has a range that goes from no character, or down")
                found |= set(range(one, last + 1))
            else:
                found.add(one)
        self.take()
        if wide:
            raise self.fail("\\D, \\S and \\W stand alone, not in brackets")
        return (_ASCII - found, True) if negated else (frozenset(found), False)

    def member(self) -> int | frozenset[int]:
        letter = self.take()
        found = self.escape() if letter == "\\" else self.character(letter)
        if isinstance(found, tuple):
            return found[0]
        if len(found) > 1:
            raise self.fail("classes hold characters of ASCII; write others as alternatives, (a|\u00e9)")
        return found[0]

    def built(
        self, one: tuple[int, int] | tuple[frozenset[int], bool] | bytes, *, wide: bool = False
    ) -> tuple[int, int]:
        if isinstance(one, bytes):
            first = last = self.nfa.state()
            for byte in one:
                after = self.nfa.state()
                self.nfa.moves[last].append((frozenset([byte]), after, False))
                last = after
            return first, last
        if isinstance(one[0], frozenset):
            first, last = self.nfa.state(), self.nfa.state()
            self.nfa.moves[first].append((one[0], last, False))
            if wide and one[1]:
                self.nfa.moves[first].append((_HIGH, last, True))
            return first, last
        first, last = one
        assert isinstance(first, int)
        assert isinstance(last, int)
        return first, last


def literal(text: str) -> str:
    """Return the pattern that matches a text and nothing else."""
    controls = {chr(code): f"\\{name}" for name, code in _CONTROLS.items()}
    return "".join(controls.get(c) or (c if c.isalnum() or not c.isascii() or c == " " else f"\\{c}") for c in text)


def compile_pattern(pattern: str, *, anchored: bool = False) -> Automaton:
    """Return the automaton of a pattern.

    Args:
        pattern: See the module.
        anchored: Matches begin with the first byte, and what cannot go on to one leads to a state that is never left.

    Raises:
        UserError: The pattern is none, has something that is not known, matches the empty text, may end within a
            character, or takes too many states.
    """
    reader = _Reader(pattern)
    first, last = reader.whole()
    nfa = reader.nfa
    start = nfa.closure(frozenset([first]))
    if last in start:
        raise reader.fail("it matches the empty text")
    places, order = {start: 0}, [start]
    rows, ends = [], []
    for states in order:  # Grows while it is gone through.
        row, end = np.zeros(256, np.int32), np.zeros(256, bool)
        moves = [move for state in states for move in nfa.moves[state]]
        if any(part and last in nfa.closure(frozenset([to])) for _, to, part in moves):
            raise reader.fail("it may end with any character: let it end with one of ASCII, such as \\n")
        bytes_by_goals: dict[frozenset[int], list[int]] = {}
        for byte in range(256):
            bytes_by_goals.setdefault(frozenset(to for held, to, _ in moves if byte in held), []).append(byte)
        for goals, held in bytes_by_goals.items():
            reached = nfa.closure(goals)
            if last in reached:
                end[held] = True
                continue
            reached = reached if anchored else reached | start
            if reached not in places:
                places[reached] = len(order)
                order.append(reached)
            row[held] = places[reached]
        rows.append(row)
        ends.append(end)
        if len(order) > _MOST_STATES:
            raise reader.fail(f"it takes more than {_MOST_STATES} states: make it shorter")
    return Automaton(np.stack(rows), np.stack(ends))


def run(automaton: Automaton, state: int, data: bytes) -> tuple[int, list[int]]:
    """Return the state after some bytes, and how many bytes had been read at the end of each match."""
    ended = []
    for i, byte in enumerate(data, 1):
        if automaton.ends[state, byte]:
            ended.append(i)
        state = int(automaton.next[state, byte])
    return state, ended
