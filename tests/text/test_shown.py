"""Text as it can be shown: nothing acts, hides or fails to be written, and it still has one meaning."""

import logging
import re
import sys
from unicodedata import category

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ttcjax.text.shown import LogFormatter, block, one_line, shown

ENCODINGS = ("utf-8", "utf-16", "ascii", "latin-1", "cp1252", "cp437", "koi8-r", "shift_jis", "gb18030")
HARD = st.text(
    st.one_of(
        st.characters(),  # surrogates too
        st.sampled_from("\x1b\x07\x08\r\x7f\x9b\u202e\u2066\u200b\u200c\u200d\xad\ufe0f\u2028\ufeff\U000e0041"),
        st.sampled_from("\\xu0123abcdefU\n\t πलي😀"),
    )
)


def read_back(text):
    """The text that was shown: every escape is one character, and every other backslash itself."""
    return re.sub(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", lambda found: chr(int(found[0][2:], 16)), text)


@given(text=HARD, lines=st.booleans(), encoding=st.sampled_from(ENCODINGS))
@example("\\x1b\\u03c0\\X1B \\xdef \\frac{1}{2} \\\\x41", True, "ascii")
@example("\\\x1b", False, "ascii")
@example("\\xé", True, "ascii")
def test_every_text_can_be_written_and_read_back(text, lines, encoding):
    out = shown(text, lines=lines, holds=encoding)
    assert out.encode(encoding).decode(encoding) == out, "the stream cannot hold what is shown"
    assert read_back(out) == text, "two texts are shown alike"
    assert not [c for c in out if category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t" * lines]


@given(text=HARD)
def test_what_reorders_or_hides_is_not_there(text):
    out = shown(text)
    kept = {c for c in out if category(c) == "Cf"}
    assert not kept & set("\xad\u061c\u200b\u200e\u200f\u2060\ufeff"), "invisible"
    assert not any("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069" or c >= "\U000e0000" for c in kept)
    assert not re.search("[\u200c\u200d\ufe0f]{2}", out.replace("\ufe0f\u200d", "")), "more than one joiner in a row"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m and \x7f", r"\x9b31m and \x7f"),
        ("title \x1b]0;mine\x07", r"title \x1b]0;mine\x07"),
        ("a\rb\x08\x0b\x0c\x00", r"a\x0db\x08\x0b\x0c\x00"),
        ("\u202eabc\u202c \u2067x\u2069 \u200fy\u061c", r"\u202eabc\u202c \u2067x\u2069 \u200fy\u061c"),
        ("1\u200b2\xad3\u20604\ufeff", r"1\u200b2\xad3\u20604\ufeff"),
        ("tag\U000e0041\U000e007f", r"tag\U000e0041\U000e007f"),
        ("fill\u3164\u115f\uffa0\u034f", r"fill\u3164\u115f\uffa0\u034f"),
        ("cut\ud800 \udc9b", r"cut\ud800 \udc9b"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("1\u200d2 \u200c", r"1\u200d2 \u200c"),
        ("x\ufe0f\ufe01\ufe0f \ufe0f", "x\ufe0f\\ufe01\\ufe0f \\ufe0f"),
        ("9\U000e0130\U000e0131", "9\U000e0130\\U000e0131"),
    ],
)
def test_what_acts_or_hides_becomes_an_escape(text, expected):
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2 + 2 = 4\n\tso x = 4",
        r"\frac{1}{2} \times \nu \xi \underline{x} C:\new",
        "naïve Größe π ≈ 3,14 €",
        "می\u200cخواهم",  # noqa: RUF001 Persian: a non-joiner inside a word.
        "क्\u200dष न्\u200d",  # Devanagari: a joiner inside a word, and after the last virama.
        "👩🏽\u200d🚀 ❤\ufe0f\u200d🔥 🏳\ufe0f\u200d🌈 🙂\u200d↔\ufe0f 1\ufe0f⃣ 👍🏿 🇫🇷",
        "עברית العربية \u0600١٢",  # noqa: RUF001
        "日本語 葛\U000e0100 한국어 ｆｕｌｌ",  # noqa: RUF001
        "é e\u0301 \xa0\u3000\ue000",
    ],
)
def test_what_people_write_stays(text):
    assert shown(text) == text


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", r"\u03c0 \xe9 \U0001f600 a"),
        ("latin-1", "\\u03c0 é \\U0001f600 a"),
        ("cp1252", "\\u03c0 é \\U0001f600 a"),
        ("koi8-r", r"\u03c0 \xe9 \U0001f600 a"),
        ("cp437", "π é \\U0001f600 a"),
        ("utf-8", "π é 😀 a"),
    ],
)
def test_what_a_stream_lacks_is_what_pythons_own_escape_would_be(encoding, expected):
    assert shown("π é 😀 a", holds=encoding) == expected
    assert "π é 😀 a".encode(encoding, "backslashreplace").decode(encoding) == expected


@given(text=HARD, encoding=st.sampled_from(ENCODINGS))
def test_a_message_is_one_line_and_quotes_stay(text, encoding):
    out = one_line(text, holds=encoding)
    assert not [c for c in out if category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert one_line(out, holds=encoding) == out, "what was shown before changes"
    assert one_line(ascii(text), holds=encoding) == ascii(text), "a quote is escaped twice"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("the\nfix", "the fix"),
        ("\n a  b \r\n\n\tc\n", " a  b c"),
        ("no folder a\tb\rc", r"no folder a\x09b\x0dc"),
        ("strategy 'be\\x1bam' and \x1b[2J", r"strategy 'be\x1bam' and \x1b[2J"),
        ("q\u2028ttcjax: all is well", r"q\u2028ttcjax: all is well"),
    ],
)
def test_breaks_in_messages_become_blanks_and_the_rest_is_seen(message, expected):
    assert one_line(message) == expected


def test_tracebacks_keep_their_lines():
    assert block("Traceback:\n\tx = '\\n'\nValueError: \x1b[31m") == "Traceback:\n\tx = '\\n'\nValueError: \\x1b[31m"


@pytest.mark.parametrize("text", ["\x1b[31mred", "two\nlines", "a\u2028b", "\udc80"])
def test_a_log_record_is_one_line_and_its_error_is_below(text):
    try:
        raise ValueError(text)
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("ttcjax", logging.INFO, "", 0, "stage %s", (text,), error)
    head, *rest = LogFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S").format(record).split("\n")
    assert re.fullmatch(r"\d\d:\d\d:\d\d stage .*", head)
    assert one_line(text) in head
    assert rest[0] == "Traceback (most recent call last):"
    assert "\x1b" not in "".join(rest)
    "\n".join(rest).encode()
