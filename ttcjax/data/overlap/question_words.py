"""Words of a question by which it is known again, in other typography and with other names."""

from __future__ import annotations

import re
import unicodedata

_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_LAYOUT = re.compile(
    r"\\(?:left|right|bigg?|Bigg?|displaystyle|textstyle|text|textbf|textit|mathrm|mathbf|mbox|q?quad|,|;|:|!|\[|\]|\(|\)"
    r"|\\|\s|(?:begin|end)\{[a-z*]*\})(?![a-zA-Z])"
)
_FRAC = re.compile(r"\\[dtc]?frac(?![a-zA-Z])\s*(\d?)")  # \frac12 is 1 over 2
_TOKEN = re.compile(
    r"\\[a-z]+|\d+(?:\.\d+)?|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|[-+*/=^_<>|%\u2264\u2265\u00d7]", re.IGNORECASE
)


def words(text: str, *, names: bool = True) -> tuple[str, ...]:
    """Return the words, numbers and operators of a text in small letters; layout and punctuation are left out.

    Args:
        text: The question.
        names: Keep words that begin with a capital and are not all capitals; without them two questions that differ in
            people, places and the first words of sentences are the same.
    """
    plain = unicodedata.normalize("NFKC", text)
    plain = _FRAC.sub(r"\\frac \1 ", _LAYOUT.sub(" ", _THOUSANDS.sub("", plain)))
    return tuple(token.lower() for token in _TOKEN.findall(plain) if names or not _is_name(token))


def _is_name(token: str) -> bool:
    return token[0].isupper() and (len(token) == 1 or not token.isupper())
