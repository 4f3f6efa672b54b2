"""Numbers and what may stand around them, read whole or not at all."""

import re
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax.text.grading import extract_hash_number, grade, quantities

# Beginning of a longer text, each of them a number.
CUT_OFF = [
    "12:30",
    "3:2",
    "2^10",
    "10^{6}",
    "2**10",
    "100,50",
    "1,2345",
    "1,23",
    "0,123",
    "000,123",
    "1.2.3",
    "0.333...",
    "3.14\u2026",
    "1.234,56",
    "5 0000",
    "12 34",
    "1/0",
    "1/2/3",
    "3/4/2021",
    "1 3/2",
    "1e999999999",
    "1.5e-999999999",
    "1e5.5",
    "1e",
    "0x1F",
    "1_000",
    "3-4",
    "3 - 4",
    "3+4",
    "10+John's age",
    "6*7",
    "18 = 18",
    "5!",
    "5\u00bd",
    "5\u00b2",
    "5\u03c0",
    "5\u4e07",
    "5x",
    "5 x",
    "5xy",
    "5k",
    "5M",
    "$5m",
    "5th",
    "1st",
    "5i",
    "5 pi",
    "5 squared",
    "5 dozen",
    "3 quarters",
    "2 thirds of it",
    "5 and a half",
    "5 or six",
    "5 to seven",
    "5 point two",
    "5 twenty",
    "2 out of ten",
    "60 miles/hour",
    "18: that is it",
    "18 $5",
    "$18 and $20",
    "18 19",
    "(18)",
    "--5",
    "- 18",
    "x = 18",
    "~18",
    "<18",
    "18\\",
    "\uff11\uff18",
    "\u0661\u0668",
    "Infinity",
    "nan",
    "1" * 1001,
]


@pytest.mark.parametrize("text", CUT_OFF)
def test_the_beginning_of_something_longer_is_no_answer(text):
    assert extract_hash_number(f"so 3\n#### {text}") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1/2", "1/2"),
        ("-7 / 14", "-1/2"),
        (r"\frac{1}{2}", "1/2"),
        ("2 1/2", "5/2"),
        ("18 2/3 cups", "56/3"),
        ("1.5e6", "1500000"),
        ("1.5E+6", "1500000"),
        ("2e-3", "1/500"),
        ("1.5 x 10^6", "1500000"),
        ("1.5\u00d710^6", "1500000"),
        (r"1.5 \times 10^{6}", "1500000"),
        ("1,000,000.50", "2000001/2"),
        ("5 000", "5000"),
        ("5\u202f000", "5000"),
        ("\u22125", "-5"),
        ("\u20135", "-5"),
        ("\uff0d5", "-5"),
        ("+5", "5"),
        ("-$3.50", "-7/2"),
        ("$-3.50", "-7/2"),
        ("$ 18", "18"),
        (r"\$18", "18"),
        (r"$\$18$", "18"),
        ("18 \u20ac", "18"),
        ("\u20b918.", "18"),
        ("18%", "18"),
        (r"18\% of them", "18"),
        ("18 percent", "18"),
        ("20\u00b0C", "20"),
        ("18 dollars each.", "18"),
        ("18, as shown", "18"),
        ("18 apples (and no pears)", "18"),
        ("18 o'clock", "18"),
        ("8 p.m.", "8"),
        ("7kg", "7"),
        ("7 m", "7"),
        ("7\u5143", "7"),
        ("3 a day", "3"),
        ("**18** dollars", "18"),
        ("**18**!", "18"),
        ("18**", "18"),
        ("1.8 billion", "1800000000"),
        ("-2 hundred thousand dollars", "-200000"),
        (r"\boxed{18}", "18"),
        ("18 " + "words " * 1000, "18"),
    ],
)
def test_a_number_with_its_unit_or_prose_is_read(text, value):
    assert extract_hash_number(f"so 3\n#### {text}") == value


SIGNS = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) == "Sc"]


@given(
    st.sampled_from(SIGNS), st.integers(-(10**9), 10**9), st.sampled_from(["{0}{1}", "{1}{0}", "{0} {1}", "{1} {0}"])
)
def test_every_currency_sign_is_dropped(sign, value, form):
    assert extract_hash_number(f"#### {form.format(sign, value)}") == str(value)


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12),
    st.integers(-99, 99),
)
def test_scientific_notation_is_exact(mantissa, exponent):
    want = Fraction(mantissa) * Fraction(10) ** exponent
    for text in (f"{mantissa:f}e{exponent}", rf"{mantissa:f} \times 10^{{{exponent}}}"):
        assert quantities.parse_number(text) == want


@given(st.integers(0, 10**15), st.sampled_from([",", " ", r"\,", "{,}", r",\!", "~", "\u2009", "\u00a0"]))
def test_every_way_to_separate_thousands_is_read(value, separator):
    assert quantities.parse_number(f"{value:,}".replace(",", separator)) == value


@given(st.integers(0, 10**6), st.text(alphabet="0123456789:/^*=+_.,e x-\u00bd\u00b2!", min_size=1, max_size=6))
def test_a_number_is_never_the_beginning_of_what_python_reads_otherwise(value, more):
    """Whatever follows the digits: the value found is that of the whole text, or there is none."""
    found = extract_hash_number(f"#### {value}{more}")
    # Punctuation at the end says nothing; a "!" that follows the digits at once may be a factorial.
    # So do marks of emphasis that end there.
    whole = re.sub(r"(?:__+|\*\*\*?)?(?:[.?, ][.?!, ]*)?\Z", "", f"{value}{more}", count=1).replace(",", "")
    if found is not None and whole.replace(".", "", 1).isdigit():
        assert Fraction(found) == Fraction(whole)
    elif found is not None and " " not in whole:
        # Ratios and exponents are all that is left.
        assert "/" in whole or "e" in whole or "x10^" in whole, (whole, found)


@pytest.mark.parametrize(
    "text", ["1e999999999 dollars", "5" + " million" * 2000, "9" * 100_000, "1/" * 50_000, "**" * 5000]
)
def test_no_text_makes_a_number_that_fills_the_memory(text):
    assert extract_hash_number(f"#### {text}") is None


GOES_ON = """
5 hours thirty minutes; 2 dollars fifty cents; 5 feet six inches; 5 dollars less two cents; 60 less ten; 5 below
5 degrees below zero; 5 hours and one minute; $3 fifty; 16 base two; 0.3 repeating; 1.2 recurring; $5 mil; $5 grand
5 lakh; 3 crore rupees; 2 gross; 5 bn; 2 root three; 5 power three; 5 halved; 3 doubled; 6 dozen eggs
5 apples times two; 101 in binary; 7 in hexadecimal; 5 quintillion; 1 septillion grains; 5 square; 5 cubic; 12 twice
5 double; 5 negative; 4 plus; 5 plus some; 3 point; 5 not; 2 reciprocal
3 sixteenths; 5 twelfths of a pie; 7 elevenths; 3 twentieths; 3 millionths; 2 ten-thousandths; 2 to the eleventh power
2 raised to the twelfth; 6 tens; 3 quadrillion; 5 quintillion dollars; 5 thou; 5 mio; 5 bil; 2 scores; 0.3 repeated
0.3 periodic; 2 times itself; 5 thirty-seconds; 4 forty-fifths
"""


@pytest.mark.parametrize("text", GOES_ON.strip().replace("\n", "; ").split("; "))
def test_a_number_that_goes_on_in_words_is_not_read_in_part(text):
    assert extract_hash_number(f"#### {text}") is None
    number, _, words = text.partition(" ")
    marked = rf"{number}\text{{ {words}}}"
    if words not in ("square", "cubic", "root three", "power three", "base two"):  # in mathematics
        assert not grade(marked, number), "nor where the words are marked as text"


STAYS = """
5 times; 5 more apples; 5 fewer than before; 5 pairs; 5 dollars in one day; 5 miles per one hour; 5 apples for each one
5 people (only one of them tall); 5 base hits; 5 root vegetables; 5 power bars; 5 score cards; 5 grand pianos; 5 months
5 Smiths; 5 baths; 5 cloths; 5 moths; 5 points; 5 bins
"""


@pytest.mark.parametrize("text", STAYS.strip().replace("\n", "; ").split("; "))
def test_words_that_leave_a_number_as_it_is_stay(text):
    assert extract_hash_number(f"#### {text}") == "5"


@pytest.mark.parametrize(
    "text",
    ["2.30 p.m.", "12.30pm", "6.45 am", "10.15 o'clock", "5 or more", "5 or so", "5 at least", "5 at most", "2 and"],
)
def test_times_and_bounds_are_no_numbers(text):
    assert extract_hash_number(f"#### {text}") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("US$20", "20"),
        ("R$ 20", "20"),
        (r"US\$20", "20"),
        ("HK$20.00", "20"),
        ("5 square metres", "5"),
        ("3 p.m.", "3"),
    ],
)
def test_whose_dollars_they_are_and_units_of_two_words_are_dropped(text, value):
    assert extract_hash_number(f"#### {text}") == value
