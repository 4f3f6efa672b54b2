"""Answers compared as words: names, choices, yes and no, and numbers written out."""

from __future__ import annotations

import re

from ttcjax.config.convention import MATH, Convention

_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|operatorname|emph|textsc)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"(?:(?i:option|choice|answer)\s+)?\(?\s*([A-Za-z])\s*[).:]?")
_EXPLAINED = re.compile(r"\(?([A-J])[).:]\s*\S.*", re.DOTALL)
_ARTICLE = re.compile(r"^(?:the|a|an)\s+")
_SYNONYMS = {
    "true": "yes", "false": "no", "empty set": r"\emptyset", "null set": r"\emptyset", "does not exist": "dne",
    "no solution": r"\emptyset", "no solutions": r"\emptyset", "no real solutions": r"\emptyset",
    "all real numbers": r"\mathbb{R}", "all reals": r"\mathbb{R}", "all real": r"\mathbb{R}",
}  # fmt: skip
_NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
_NUMERALS += "seventeen eighteen nineteen twenty"
_SYNONYMS |= {word: str(number) for number, word in enumerate(_NUMERALS.split())}


def squashed(text: str) -> str:
    """Return a text without spaces, but for those between digits."""
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", _WRAPPED.sub(r"\1", text))
    text = re.sub(r"(\\\{\w)(?::|\\mid)", r"\1|", text)
    return re.sub(r"(?<=[\^_])\{(\w)\}", r"\1", text)


def words(text: str, convention: Convention) -> str:
    """Return a text without marks, articles and, as the convention says, capitals; synonyms are one word."""
    text = " ".join(_WRAPPED.sub(r" \1 ", text).split())
    text = text.strip(" .,;:!'\"*")
    text = text.lower() if convention.ignore_case else text
    text = _ARTICLE.sub("", text.replace("-", " ") if text.replace("-", "").isalpha() else text)
    return _SYNONYMS.get(text.lower(), text)


def meant(text: str) -> str:
    """Return the mathematics that a few words stand for, as `five` or `all real numbers` do, or the text."""
    word = words(text, MATH) if text.replace(" ", "").isalpha() or text.startswith("\\text") else text
    return word if word in _SYNONYMS.values() else text


def same_words(answer: str, gold: str, convention: Convention) -> bool:
    """Return whether two answers are the same words or the same choice, `(C)` and `C. 42`."""
    a, g = (" ".join(_WRAPPED.sub(r" \1 ", text).split()).strip("*") for text in (answer, gold))
    left, right = _CHOICE.fullmatch(a), _CHOICE.fullmatch(g)
    if left and right:
        if left[1] == right[1]:
            return True
        marked = answer != left[1] or gold != right[1] or gold in "ABCDE"
        return convention.ignore_case and marked and left[1].lower() == right[1].lower()
    explained = (right and _EXPLAINED.fullmatch(a)) or (left and _EXPLAINED.fullmatch(g))
    if explained:
        letter = right or left
        assert letter is not None
        return explained[1] == letter[1].upper()
    if (
        re.search(r"[A-Za-z]{3}", _WRAPPED.sub("", re.sub(r"\\[a-zA-Z]+", "", f"{answer} {gold}")))
        or "\\text" in answer + gold
    ):
        both = [re.sub(r"(?<=[a-z]{3})s\b", "", words(text, convention)) for text in (answer, gold)]
        return both[0] == both[1]
    return False
