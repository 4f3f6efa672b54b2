"""The report's page: nothing from outside, nothing broken, model text as text; and that a browser shows all of it."""

import base64
import dataclasses
import html.parser
import json
import math
import pathlib
import re
import shutil
import subprocess
import xml.etree.ElementTree

import numpy as np
import pytest
from etils import epath
from matplotlib.image import imread

from tests.eval.report.test_report import BUDGETS, CONFIG, STRATEGIES, make_rows, run, write
from tests.eval.told import filled
from ttcjax.eval.report import catalogue, page, summary_file
from ttcjax.eval.sections import accuracy
from ttcjax.eval.sections.revising import revisions
from ttcjax.eval.sections.revising.revision_numbers import Answer, AtStep, Chain
from ttcjax.eval.sections.verifying import overoptimisation

HOSTILE = '</td><script>document.title="bad"</script><img src="http://example.com/x.png" onerror="x">&amp;'
"""A step of every solution, as a model might write it."""
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(html.parser.HTMLParser):
    """What stands in a page: attributes by tag, ids, text, and tags that are not closed in their order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.style = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text.append(data)

    def all(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A report of made-up rows whose solutions are hostile text, and its page."""
    workdir = epath.Path(tmp_path_factory.mktemp("reported"))
    bank, search = make_rows()
    bank, search = (
        [row | {"text": f"1+1=2\n{HOSTILE}"} for row in bank],
        {key: [row | {"text": f"{HOSTILE}\n1+1=2"} for row in found] for key, found in search.items()},
    )
    write(workdir, bank, search)
    config = dataclasses.replace(CONFIG, name="a <b>name</b>")
    run(workdir, config)
    summary = summary_file.read(workdir / "summary.json")
    folder = pathlib.Path(workdir) / "report.partial"
    return summary, folder, (folder / "index.html").read_text()


def test_it_is_well_formed_and_needs_nothing_from_outside(reported):
    _, folder, text = reported
    found = Page(text)
    assert found.open == []
    ids = found.all("id")
    assert len(ids) == len(set(ids))
    assert not {tag for tag, _ in found.tags} & {"script", "iframe", "object", "embed", "base", "video", "audio"}
    for link in found.all("href"):
        if link.startswith("#"):
            assert link[1:] in ids, f"{link} leads nowhere"
        elif not link.startswith("data:"):
            assert re.fullmatch(r"[\w.]+", link), f"{link} is not a file beside the page"
            assert (folder / link).exists(), f"{link} is not there"
    assert all(source.startswith("data:image/svg+xml;base64,") for source in found.all("src"))
    assert not found.all("srcset")
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert not re.search(r"@import|url\(|@font-face", found.style)
    assert len(text) < 4e6


def test_every_figure_is_in_it_with_words_for_it(reported):
    _, folder, text = reported
    found = Page(text)
    images = [attributes for tag, attributes in found.tags if tag == "img"]
    made = {path.stem for path in folder.glob("*.svg")}
    assert {"accuracy_vs_budget", "aggregation", "over_optimisation", "by_difficulty", "quality"} <= made
    assert len(images) == len(made)
    inlined = {base64.b64decode(image["src"].partition("base64,")[2]) for image in images}
    assert inlined == {(folder / f"{name}.svg").read_bytes() for name in made}
    for image in images:
        assert len(image["alt"]) > 20
    for svg in inlined:
        for element in xml.etree.ElementTree.fromstring(svg).iter():
            links = [value for name, value in element.attrib.items() if name.endswith("href")]
            assert all(link.startswith("#") for link in links), "a figure that refers to something outside"
    words = " ".join(" ".join(found.text).split())
    for name in made:
        entry = catalogue.entry(name)
        assert entry is not None, f"{name} is not in the catalogue"
        assert entry.claim in words
        assert entry.title in words
    for entry in catalogue.figures():
        if entry.name not in made:
            assert f"{entry.title} {entry.switch}" in words, f"{entry.name} is neither shown nor said to be missing"


def test_model_text_is_shown_as_text(reported):
    summary, _, text = reported
    assert "<script" not in text
    assert "example.com" in " ".join(Page(text).text)
    examples = summary.of(overoptimisation.SECTION).examples
    assert examples, "the test shows nothing without an example"
    assert HOSTILE in [step for example in examples for step, _ in example.steps]
    assert any(HOSTILE in part for part in Page(text).text)
    assert "a <b>name</b>: test-time compute" in Page(text).text


def test_claims_and_numbers_are_those_of_the_summary(reported):
    summary, folder, text = reported
    words = Page(text).text
    assert summary.claims
    for claim in summary.claims:
        assert claim.claim in words
    assert len((folder / "claims.csv").read_text().splitlines()) == 1 + len(summary.claims)
    for strategy in STRATEGIES:
        for n in BUDGETS:
            assert f"{100 * summary.of(accuracy.SECTION).strategies[strategy][n].mean:.1f}" in words


def test_a_figure_that_is_not_in_the_catalogue_is_shown_too(reported):
    summary, folder, _ = reported
    svg = (folder / "quality.svg").read_bytes()
    text = page.html(summary, {"of_tomorrow": svg}, {}, {})
    assert 'id="figure-of_tomorrow"' in text
    assert text.count("<img") == 1


def test_budgets_stand_side_by_side():
    header = ["strategy", "budget", "mean", "low", "high"]
    rows = [
        ["a", "1", "0.123456", "0.1", "0.2"],
        ["a", "2", "0.5", "", ""],
        ["b", "2", "", "", ""],
        ["b", "4", "1e9", "1", "2"],
    ]
    assert page.pivot(header, rows) == (
        ["strategy", "N = 1", "N = 2", "N = 4"],
        [["a", "0.1235 (0.1 to 0.2)", "0.5", ""], ["b", "", "", "1e+09 (1 to 2)"]],
    )
    assert page.pivot(["step", "mean", "low", "high"], [["1", "0.1", "0", "0.2"]]) == (
        ["step", "estimate"],
        [["1", "0.1 (0 to 0.2)"]],
    )
    assert page.pivot(["a", "b"], [["1", "2"]]) == (["a", "b"], [["1", "2"]])


def test_revisions_are_shown_as_text(reported):
    summary, _, _ = reported
    chain = Chain("q<1>", "2", [Answer(HOSTILE, False, math.nan), Answer("2", True, 0.5)])
    step = AtStep(mean=0.5, low=0.4, high=0.6, step=1, chains=1)
    revision = dataclasses.replace(filled(revisions.SECTION), examples=[chain], pass_at_1_by_step=[step])
    summary = dataclasses.replace(summary, sections={**summary.sections, revisions.SECTION.name: revision})
    text = page.html(summary, {}, {}, {})
    assert "<script" not in text
    found = Page(text)
    assert {HOSTILE, "question q<1>", "wrong", "right", "n/a", "0.500"} <= set(found.text)


def test_claims_lead_to_their_figures(reported):
    summary, _, text = reported
    assert catalogue.of_source("Fig. 3 right", ["accuracy_vs_budget", "by_difficulty"]) == "by_difficulty"
    assert catalogue.of_source("Fig. 4", ["by_difficulty", "compute_optimal"]) == "compute_optimal"
    assert catalogue.of_source("Fig. 7 right", ["revision_ratios"]) == "revision_ratios"
    assert catalogue.of_source("ICLR Fig. 13", ["aggregation", "verifiers"]) == "verifiers"
    assert catalogue.of_source("Fig. 13", ["aggregation", "verifiers"]) == "aggregation"
    assert catalogue.of_source("Fig. 1", ["aggregation", "verifiers", "exchange"]) is None
    assert catalogue.of_source("Section 6.1", [entry.name for entry in catalogue.figures()]) is None
    (claim, *_) = (claim for claim in summary.claims if claim.source == "Fig. 3 left")
    row = text[text.index(f"<td>{claim.claim}</td>") :].partition("</tr>")[0]
    assert '<a href="#figure-accuracy_vs_budget">Fig. 3 left</a>' in row
    assert f">{claim.held}<" in row


def test_a_long_table_is_cut_and_says_so(reported):
    summary, folder, _ = reported
    svg = (folder / "quality.svg").read_bytes()
    lines = "\n".join(["strategy,budget,mean,low,high,questions", *(f"s{i},1,0.5,0.4,0.6,20" for i in range(1000))])
    text = page.html(summary, {"accuracy_vs_budget": svg}, {"accuracy": lines}, {})
    assert "The first 40 of 1000 rows" in text
    assert "s39<" in text
    assert "s40<" not in text


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
MEASURE = """<script>addEventListener("load", () => { document.body.dataset.seen = JSON.stringify({
  images: [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.offsetHeight]),
  wide: document.body.scrollWidth, room: document.body.clientWidth, title: document.title,
  loaded: performance.getEntriesByType("resource").map(e => e.name).filter(name => !name.startsWith("data:")) }) })
</script>"""


def chromium(folder: pathlib.Path, url: str, *options: str) -> str:
    assert CHROMIUM is not None
    quiet = "no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update disable-sync"
    command = [CHROMIUM, "--headless", *(f"--{name}" for name in quiet.split()), f"--user-data-dir={folder}/profile"]
    found = subprocess.run([*command, *options, url], capture_output=True, text=True, timeout=120, check=True)
    return found.stdout


@browser
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_every_figure_and_no_sideways_scrolling(reported, tmp_path, width):
    _, folder, text = reported
    assert text.count("</body>") == 1
    # A window has a least width, so the page itself is made as narrow.
    text = text.replace("</body>", f"<style>html {{ max-width: {width}px }}</style>{MEASURE}</body>")
    (tmp_path / "page.html").write_text(text)
    dom = chromium(tmp_path, f"file://{tmp_path}/page.html", "--dump-dom", f"--window-size={width},900")
    (body,) = (attributes for tag, attributes in Page(dom).tags if tag == "body")
    seen = json.loads(body["data-seen"])
    assert len(seen["images"]) == len(list(folder.glob("*.svg")))
    for complete, *sizes in seen["images"]:
        assert complete
        assert min(sizes) > 100, "a figure has no size"
    assert seen["wide"] <= seen["room"] <= width, "the page is wider than the window"
    assert seen["title"] == "a <b>name</b>: test-time compute", "text of a model ran as a script"
    assert seen["loaded"] == []


@browser
def test_a_browser_draws_it_light_and_dark(reported, tmp_path):
    _, folder, _ = reported
    shade = {}
    for scheme, value in (("dark", 0), ("light", 1)):
        target = tmp_path / f"{scheme}.png"
        options = (f"--screenshot={target}", "--window-size=900,1400", f"--blink-settings=preferredColorScheme={value}")
        chromium(tmp_path, f"file://{folder}/index.html", *options)
        pixels = imread(target)[..., :3]
        shade[scheme] = float(np.median(pixels))
        assert pixels.std() > 0.02, "nothing is drawn"
    assert shade["dark"] < 0.3
    assert shade["light"] > 0.9
