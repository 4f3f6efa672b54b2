r"""Numbers in the text of answers: read whole and exactly, or not at all.

`12:30` is not 12 with something after it, nor is `2^10` 2. What may stand around a number without changing it is
listed here: a currency sign, a unit, words that are plainly prose.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MAX_ANSWER_CHARS = 1000
"""Longer texts are read as no number."""
MAX_EXPONENT = 500
"""Most places that an exponent may move the decimal point by: the number is written out."""

_MINUS = re.compile("[\u2212\u2013\ufe63\uff0d]")
_ZERO_WIDTH = re.compile("[\u200b\u200c\u2060\ufeff]")
_LATEX_SPACE = re.compile(r"\\[,:;> ]|(?<=\S)~|\\(?:thin|med|thick)space(?![a-zA-Z])")

# Most texts are one or the other: for speed.
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_DIGIT = re.compile(r"\d", re.ASCII)

_WHOLE = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d*)?|\.\d+)"
_SPACED = r"[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?(?![\d,])"
_TIMES = r"\s?(?:[x\u00d7*\u00b7\u22c5]|\\times|\\cdot)\s?10\s?\^\s?"
_FRAC = r"\\[cdt]?frac\s*"
_DIGITS = rf"{_FRAC}(?:\{{\s?(\d+)\s?\}}\s*\{{\s?(\d+)\s?\}}|(\d)\s*(\d))"
# The longest form first: what is read must not be the beginning of another number.
_FORMS = {
    "mixed": rf"({_WHOLE}) (\d+)\s?/\s?(\d+)|({_WHOLE})\s?{_DIGITS}",
    "ratio": rf"({_DECIMAL})\s*/\s*({_DECIMAL})|{_FRAC}\{{\s?([-+]?{_DECIMAL})\s?\}}\s*\{{\s?({_DECIMAL})\s?\}}"
    rf"|{_DIGITS}",
    "scientific": rf"({_DECIMAL})(?:[eE]([-+]?\d+)|{_TIMES}(?:\{{\s?([-+]?\d+)\s?\}}|([-+]?\d+)))",
    "decimal": rf"({_SPACED})|({_DECIMAL})",
}
_PATTERNS = {form: re.compile(pattern, re.ASCII) for form, pattern in _FORMS.items()}

_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MOST_SCALES = 3
"""Of one number: `hundred thousand million`."""
_SCALE = re.compile(rf"\s?({'|'.join(_SCALES)})(?![^\W_])", re.IGNORECASE)
_MARKED_WORDS = re.compile(
    r"\s?\\(?:text|textrm|textit|textbf|mathrm|mbox|hbox)\s*\{([^{}\\]*)\}(?:\^(?:\{[23]\}|[23]))?"
)
_TIME = re.compile(r"[\s~]*[ap]\.?\s?m\.?[\s.]*", re.IGNORECASE)
_UNIT_SIGN = re.compile(r"\A\s?(?:\\?%|\u00b0\s?[CFK]?(?![^\W_]))")

_COUNTRY = re.compile(r"\A(?:US|CA|AU|NZ|HK|SG|MX|[ACRS])(?=\\?\$)")
"""What stands before a dollar sign to tell whose dollars they are."""

_END = ".,;!?\u2026\u3002"
_AROUND_WORDS = _END + "'\"\u2018\u2019\u201c\u201d()*_`"
_EMPHASIS_END = re.compile(rf"(?:\*\*\*?|__+|`+)[{_END}]*")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019.-][^\W\d_]+)*")


def word_set(*words: str) -> frozenset[str]:
    return frozenset(" ".join(words).split())


SHORT_UNITS = word_set(
    "am bbl btu cal cc cl cm cms dl dm eur fl ft gal gb gbp gm gms hr hrs hz in inr kb kg kgs khz km kmh kms kph kw",
    "kwh lb lbs mb mg mi min mins ml mm mph ms mw oz pcs pm pt pts qt qts rpm sec secs sq tb tsp usd wh yd yds yr yrs",
)
"""Other words of two or three letters right at a number may be factors, as in `5xy`."""
_UNIT_LETTERS = word_set("g h l L m s")
_NUMBER_WORDS = word_set(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen",
    "tens eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety dozen dozens",
    *(scale + plural for scale in _SCALES for plural in (" ", "s")),
)
_FRACTION_WORDS = word_set(
    "half halves third thirds quarter quarters fifth fifths eighth eighths ninth ninths twelfth twelfths",
    *(f"{ty}tieth {ty}tieths" for ty in ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine")),
    *(f"{word}th {word}ths" for word in _NUMBER_WORDS if not word.endswith(("s", "y"))),
)
_LATER = word_set("repeating repeated recurring periodic below raised itself")
"""Words that make another number of the one before them, even after a unit."""
_MORE = _LATER | word_set(
    "doubled tripled quadrupled halved double triple quadruple twice thrice half under mil lac lakh lakhs crore crores",
    "mio bil thou bn mn tn plus minus point negative inverse reciprocal not",
)
"""Those and others that do so right after it."""
_CHANGING = _MORE | word_set("squared cubed rooted factorial remainder mod modulo choose pi sin cos tan log exp")
"""Those and others that mathematics has a sign for."""
_LAST = word_set(
    "and or to of than by square cubic plus minus point times not grand gross score scores power root roots base"
)
"""Words after which something is missing, or which are a unit only before another."""
_BASES = word_set("binary ternary octal decimal hexadecimal hex")
"""In another base the digits are another number."""
_BOUNDS = re.compile(r"(?:\bor (?:more|less|fewer|so|above|below|over|under)\b|\bat (?:least|most)\b)")
_LINKS = word_set("in for per each every at on from with only all both these those any")
"""Words after which a number is another one: `18 dollars in one day`."""
_GREAT = re.compile(r"\w+illions?")
"""`quintillion` and its like, where it is none of `_SCALES`."""
_CLOCK = re.compile(r"[\s~]*(?:[ap]\.?\s?m\.?|o['\u2019]?\s?clock)(?![^\W_])", re.IGNORECASE)
_ORDINALS = word_set("st nd rd th")


def parse_number(text: str) -> Fraction | None:
    r"""Return the exact value of a text that is a number as a whole; `None` for anything else.

    Read are integers, decimals, `1.5e6` and `1.5 \times 10^6`, `a/b`, `\frac{a}{b}`, and mixed numbers (`1 1/2`).
    Commas count only where they separate thousands, and so do spaces (`5 000`, `5\,000`); an exponent is at most
    `MAX_EXPONENT`.
    """
    sign, rest = _sign(_plain(text))
    found = _read(rest)
    return _signed(sign, found[0]) if found is not None and not found[1] else None


def parse_quantity(text: str, *, words: bool) -> Fraction | None:
    r"""Return the exact value of a number with what may stand around it; `None` for anything else.

    That is one currency sign, before or after the number, and a unit in `\text{...}`; with `words` also a percent sign,
    words that are plainly a unit or prose, and punctuation at the end. `million` and its like belong to the number;
    `a.m.` and `p.m.` are a unit only where all words are; dots after a fraction (`0.333...`) are digits left out.

    Args:
        text: The answer.
        words: Whether words may follow that are not marked as text.
    """
    if _INTEGER.fullmatch(text):
        return Fraction(int(text))
    if not _DIGIT.search(text):
        return None
    sign, rest = _sign(_plain(text))
    currency, rest = _currency(rest)
    if currency and not sign:
        sign, rest = _sign(rest)
    found = _read(rest)
    if found is None:
        return None
    value, rest = found
    if rest.startswith(("..", "\u2026")) and value.denominator > 1:
        return None  # digits are left out
    if value.denominator > 1 and _CLOCK.match(rest):
        return None  # `2.30 p.m.` is a time of hours and minutes
    if not currency:
        currency, rest = _currency(rest)
    marked = _MARKED_WORDS.match(rest)
    if marked and not words and _TIME.fullmatch(marked[1]):
        return None
    after = rest[marked.end() :].strip() if marked else ""
    rest = f" {marked[1].strip()} {after}".rstrip() if marked else rest
    for _ in range(_MOST_SCALES):
        scale = _SCALE.match(rest)
        if not scale:
            break
        value, rest = value * _SCALES[scale[1].lower()], rest[scale.end() :]
    if words:
        rest = _UNIT_SIGN.sub(" ", rest, count=1)
    elif after or (rest and not marked):
        return None
    return _signed(sign, value) if is_prose(rest, money=currency) else None


def in_words(text: str) -> str | None:
    r"""Return in plain words what begins as a number and goes on as one in words, `5\text{ hours thirty minutes}`.

    `None` for any other text. Who drops words takes it for the number at its beginning.
    """
    text = _plain(text)
    found = _read(_currency(_sign(text)[1])[1])
    if found is None:
        return None
    plain = _MARKED_WORDS.sub(r" \1 ", text).lower()
    words = [
        core for token in _MARKED_WORDS.sub(r" \1 ", found[1]).lower().split() if (core := token.strip(_AROUND_WORDS))
    ]
    while words and words[0] in _SCALES:
        words = words[1:]
    pairs = zip(words, ["", *words], strict=False)
    goes_on = any(word in _LATER or _goes_on(word, before) for word, before in pairs)
    return " ".join(plain.split()) if goes_on or (words and (words[0] in _MORE or words[-1] in _LAST)) else None


def _plain(text: str) -> str:
    r"""Return `text` with one kind of space, minus and comma, LaTeX's among them; `\!` is no space at all."""
    text = _MINUS.sub("-", _ZERO_WIDTH.sub("", text)).replace("{,}", ",").replace("\\!", "")
    return " ".join(_LATEX_SPACE.sub(" ", text).split())


def _sign(text: str) -> tuple[str, str]:
    if not text.startswith(("-", "+")):
        return "", text
    # Before a space it is a sign in mathematics, and in a sentence a dash.
    return text[0], text[1:].removeprefix(" ") if text.startswith(" \\", 1) else text[1:]


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _currency(text: str) -> tuple[bool, str]:
    """Return whether `text` begins with a currency sign, and the text after it."""
    rest = _COUNTRY.sub("", text.removeprefix(" ")).removeprefix("\\")
    if rest and unicodedata.category(rest[0]) == "Sc":
        return True, rest[1:].removeprefix(" ")
    return False, text


def _read(text: str) -> tuple[Fraction, str] | None:
    """Return the value of the longest number without a sign at the beginning of `text`, and the text after it.

    What has the form of a number and no value here, with a denominator of 0 or an exponent past all bounds, is none.
    """
    for form, pattern in _PATTERNS.items():
        if match := pattern.match(text):
            if match.end() > MAX_ANSWER_CHARS:
                return None
            value = _value(form, [group for group in match.groups() if group is not None])
            return None if value is None else (value, text[match.end() :])
    return None


def _value(form: str, parts: list[str]) -> Fraction | None:
    if form == "decimal":
        return _decimal(parts[0])
    if form == "scientific":
        exponent = parts[1]
        if len(exponent.lstrip("+-0")) > len(str(MAX_EXPONENT)) or abs(int(exponent)) > MAX_EXPONENT:
            return None
        return _decimal(parts[0]) * Fraction(10) ** int(exponent)
    numerator, denominator = map(_decimal, parts[-2:])
    if not denominator:
        return None
    ratio = numerator / denominator
    if form == "ratio":
        return ratio
    return _decimal(parts[0]) + ratio if 0 < ratio < 1 else None


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", "").removesuffix("."))


def is_prose(rest: str, *, money: bool) -> bool:
    """Return whether what follows a number says nothing of its value: nothing, words, punctuation at the end.

    Args:
        rest: What follows.
        money: Whether the number has a currency sign: $5 m are no metres.
    """
    if rest.startswith("!"):
        return False  # it may be a factorial
    if _BOUNDS.search(rest.lower()):
        return False
    attached = rest != "" and not rest.startswith((" ", "(", *_END))
    tokens = rest.split()
    before = ""
    for i, token in enumerate(tokens):
        core = token.strip(_AROUND_WORDS)
        word = core if len(core) == 1 and core != "A" and core != "I" else core.lower()
        if not word:
            if token.strip(_END) and not (_EMPHASIS_END.fullmatch(token) and i + 1 == len(tokens)):
                return False  # a lone sign
            continue
        if not _WORD.fullmatch(word) or any(map(str.isnumeric, word)):
            return False
        if _goes_on(word, before):
            return False
        if word in _LAST and i + 1 == len(tokens) and (before or word != "times"):
            return False
        if (not before or word in _LATER) and (word in _CHANGING or (attached and word in _ORDINALS)):
            return False
        if not _is_word(word, attached=attached and not before, money=money, last=i + 1 == len(tokens)):
            return False
        before = word
    return True


def _goes_on(word: str, before: str) -> bool:
    """Return whether a number goes on with a word, as in `5 hours thirty minutes`: one that counts, or a base."""
    counts = any(part in _NUMBER_WORDS or part in _FRACTION_WORDS or _GREAT.fullmatch(part) for part in word.split("-"))
    return (counts and before not in _LINKS) or word in _BASES


def _is_word(word: str, *, attached: bool, money: bool, last: bool) -> bool:
    """Return whether a word after a number is a unit or prose, and no variable, factor or abbreviated `million`."""
    word = word.replace(".", "")
    if len(word) == 1:
        # Scripts without capitals have words of one letter.
        unit = (word in _UNIT_LETTERS and not money) or word.lower() == word.upper()
        return unit or (word in "ai" and not attached and not last)
    if len(word) > 3 or word in SHORT_UNITS or not word.isascii():
        return True
    return not attached and not set(word).isdisjoint("aeiouy")
