r"""Text of users and models as it can be shown: nothing in it acts on a terminal, hides, or fails to be written.

What cannot be shown stands as a backslash escape of Python's: `\x1b`, `\u202e`, `\U000e0041`. That is

- control characters (categories Cc, Cs, Zl, Zp): C0 with the escape that begins a terminal's sequences, delete, C1,
  lone surrogates, line and paragraph separators; but newline and tab stay where several lines are shown;
- characters that reorder or hide others: the format characters (Cf), such as bidirectional overrides, zero-width
  spaces, soft hyphens and tags, and the others without a shape (Default_Ignorable_Code_Point in Unicode). A joiner
  inside a word or an emoji stays, as does one variation selector after what it varies;
- what the stream or the font does not have.

A backslash that stands before the letters and digits of such an escape is itself shown as `\x5c`, so that what is shown
has one meaning, and every other backslash, those of LaTeX for example, stays as it is.
"""

from __future__ import annotations

import codecs
import logging
import re
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any
from unicodedata import category, combining

Holds = Callable[[str], bool]
"""Tells whether one character can be written."""

_CONTROL = frozenset(["Cc", "Cs", "Zl", "Zp"])
_JOINERS = "\u200c\u200d"
_VARIATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef\u180b-\u180d\u180f]")
_SEEN_FORMATS = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001343f]")
"""Format characters with a shape: Arabic, Syriac and Kaithi number signs, and the joints of hieroglyphs."""
_NO_SHAPE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2065\u3164\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]")
"""Characters ignorable by default in Unicode, beside format characters and variation selectors, such as fillers."""
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})")
_VIRAMA = 9
"""Canonical combining class of the signs after which a joiner may also end a word."""


def shown(text: str, *, lines: bool = True, holds: Holds | str = "utf-8") -> str:
    r"""Return text as it can be shown; see this module for what becomes an escape.

    Two texts are shown alike only if they are equal, whatever `holds`.

    Args:
        text: Any string, lone surrogates included.
        lines: Whether newline and tab stay; else they stand as `\x0a` and `\x09`.
        holds: The encoding of the stream, or what tells the characters that can be written.
    """
    # A backslash that looks like the beginning of an escape is the one thing to change in text that needs no other.
    return _visible(_ESCAPE.sub(lambda found: rf"\x5c{found[0][1:]}", text), "\n\t" if lines else "", holds)


def one_line(message: str, *, holds: Holds | str = "utf-8") -> str:
    r"""Return a message as one line; breaks between its lines become blanks.

    Backslashes stay as they are: a message may quote text by `repr`, which escapes as `shown` does. So this may be
    applied to what it has returned.
    """
    return _visible(re.sub(r"[ \t\r]*\n[ \t\r\n]*", " ", message.strip("\r\n")), "", holds)


def block(message: str) -> str:
    """Return a message of several lines, such as a traceback; backslashes stay as in `one_line`."""
    return _visible(message, "\n\t", "utf-8")


def _visible(text: str, keep: str, holds: Holds | str) -> str:
    if text.isascii() and text.isprintable():  # Most of it; every encoding has these.
        return text
    can = _encodes(holds) if isinstance(holds, str) else holds
    return "".join(
        char if char in keep or (_has_shape(text, i) and can(char)) else _escape(char) for i, char in enumerate(text)
    )


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _has_shape(text: str, i: int) -> bool:
    """Tell whether the character at a place is seen there, or belongs to the shape of those beside it."""
    char, before, after = text[i], text[i - 1] if i else "", text[i + 1 : i + 2]
    kind = category(char)
    if kind in _CONTROL:
        return False
    if char in _JOINERS:
        return _joins(before, after)
    if _VARIATION.match(char):
        return bool(before) and category(before)[0] in "LNPS" and not _NO_SHAPE.match(before)
    return not _NO_SHAPE.match(char) and (kind != "Cf" or _SEEN_FORMATS.match(char) is not None)


def _joins(before: str, after: str) -> bool:
    """Tell whether a joiner stands between two letters, ends a cluster of letters, or stands between two emoji."""
    if not before:
        return False
    in_word = after != "" and all(_is_letter(char) for char in (before, after))
    of_emoji = category(before) in ("So", "Sk") or before == "\ufe0f"
    return in_word or combining(before) == _VIRAMA or (of_emoji and (after == "\u2194" or _is_symbol(after)))


def _is_letter(char: str) -> bool:
    return category(char)[0] in "LM" and not _NO_SHAPE.match(char) and not _VARIATION.match(char)


def _is_symbol(char: str) -> bool:
    return char != "" and category(char) == "So"


def _encodes(encoding: str) -> Holds:
    name = codecs.lookup(encoding).name
    if name.startswith("utf"):
        return lambda char: True

    def encodes(char: str) -> bool:
        try:
            return char.encode(name).decode(name) == char  # Shift JIS writes a yen sign as the byte of a backslash.
        except UnicodeError:
            return False

    return encodes


# ---- Streams


def protect(stream: object) -> None:
    """Make a stream write what its encoding lacks as an escape, the same as that of `shown`, and never fail on it."""
    reconfigure = getattr(stream, "reconfigure", None)  # Not a method of every stream that stands in for stdout.
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def protect_output() -> None:
    """Make stdout and stderr write what their encodings lack as escapes."""
    for stream in (sys.stdout, sys.stderr):
        protect(stream)


def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback on stderr as Python does, for `sys.excepthook`; its messages may quote any text."""
    print(shown_traceback(error), end="", file=sys.stderr)


def shown_traceback(error: BaseException) -> str:
    """Return the traceback of an error as it can be shown, ended by a newline."""
    return block("".join(traceback.format_exception(error)))


class LogFormatter(logging.Formatter):
    """Writes one line a record, as `one_line` does, and tracebacks below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return shown_traceback(ei[1])


def log_handler() -> logging.Handler:
    """Return what writes logs to stderr, with the time of day before each."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    return handler
