"""The built site, read from the disk in a real browser: no network, no error, live sliders."""

import contextlib
import functools
import json
import os
import re
import shutil
import unicodedata
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml

BOOK = Path(__file__).parents[1] / "book"
SITE = BOOK / "_build" / "html"
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(page["file"] for part in TOC["parts"] for page in part["chapters"])]
PAGES.append("status")  # built, and in no menu
NOTEBOOKS = [
    page
    for page in PAGES
    if (BOOK / f"{page}.md").is_file()
    and "kernelspec:" in (BOOK / f"{page}.md").read_text("utf-8")[:400]
]
CHAPTERS = [page for page in PAGES if page[:2].isdigit()]
WIDE, PHONE = 1300, 390  # pixels
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def missing(reason):
    """Skip, or fail where the site is required, as it is in .ci/run."""
    (pytest.fail if os.environ.get("SITE") == "required" else pytest.skip)(reason)


@pytest.fixture(scope="module")
def site():
    """The folder of the site, if it was built from the sources as they stand."""
    built = SITE / "searchindex.js"  # written last
    if not built.is_file():
        missing("there is no site to read; `make book` builds it")
    sources = [*BOOK.glob("*.*"), *(BOOK / "_ext").glob("*.py"), *(BOOK / "_static").glob("*.css")]
    newest = max(sources, key=lambda path: path.stat().st_mtime)
    if newest.stat().st_mtime > built.stat().st_mtime:
        missing(f"{newest.name} is newer than the site; `make book` builds it anew")
    return SITE


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing("there is no Chromium to read the site with")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=[WIDE, PHONE])
def width(request):
    return request.param


@pytest.fixture
def tab(site, browser, width):
    """A tab of one width; whatever it asks the network for, and every error, fails the test."""
    with watched(browser, width) as page:
        yield page


@contextlib.contextmanager
def watched(browser, width):
    context = browser.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(120_000)  # milliseconds; a busy machine is slow, not wrong
    page = context.new_page()
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: wrong.append(f"not there: {request.url}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda line: wrong.append(line.text) if line.type in ("error", "warning") else None,
    )
    yield page
    context.close()
    assert [url for url in asked if urlsplit(url).scheme not in ("file", "data", "blob")] == []
    assert wrong == [], wrong


def read(page, name, fragment=""):
    """Open a page of the site and wait until its formulas are set."""
    page.goto((SITE / f"{name}.html").as_uri() + fragment)
    page.wait_for_function(
        "!document.querySelector('.math') || (window.MathJax && MathJax.startup"
        " && document.querySelector('mjx-container'))"
    )


def shown(figure):
    """The one frame of a figure with sliders that can be seen."""
    frames = [frame for frame in figure.locator(".nb-frame").all() if frame.is_visible()]
    assert len(frames) == 1
    return frames[0].inner_html()


@functools.cache
def tags(path):
    """The tags of a page: each one's name and attributes, in order."""
    found, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))
    parser.feed(path.read_text(encoding="utf-8"))
    return found


@functools.cache
def anchors(path):
    """What a link may point to in a page."""
    return {attributes.get(key) for _, attributes in tags(path) for key in ("id", "name")}


# WCAG's contrast of every text and formula that can be seen with the ground behind it, and words
# that tell which it is.
CONTRASTS = """() => {
    const rgba = color => color.match(/[\\d.]+/g).map(Number);
    const over = ([r, g, b, a = 1], below) =>
        [r, g, b].map((v, k) => a * v + (1 - a) * below[k]);
    const grounds = new Map();
    const ground = e => {
        if (!e) return [255, 255, 255];
        if (!grounds.has(e)) {
            const own = rgba(getComputedStyle(e).backgroundColor);
            grounds.set(e, over(own, ground(e.parentElement)));
        }
        return grounds.get(e);
    };
    const light = color => {
        const [r, g, b] = color.map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const e of document.querySelectorAll('.bd-article, .bd-article *')) {
        const words = e.matches('mjx-container') ? 'a formula' : e.closest('mjx-container') ? ''
            : [...e.childNodes].filter(n => n.nodeType == 3).map(n => n.data).join(' ').trim();
        if (!words || e.matches('.headerlink, style, script')
            || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
        const behind = ground(e), color = over(rgba(getComputedStyle(e).color), behind);
        const [dim, bright] = [light(color), light(behind)].sort((a, b) => a - b);
        found.push([(bright + 0.05) / (dim + 0.05),
                    `${e.tagName} ${e.className}: ${words.slice(0, 40)}`]);
    }
    return found;
}"""
# White sheets on a dark page, but for those that pictures are drawn on.
SHEETS = """() => [...document.querySelectorAll('.bd-article *:not(img, .nb-panels)')]
    .filter(e => e.offsetWidth * e.offsetHeight > 500)
    .filter(e => e.checkVisibility({opacityProperty: true}))
    .filter(e => {
        const own = getComputedStyle(e).backgroundColor;
        const [r, g, b, a = 1] = own.match(/[\\d.]+/g).map(Number);
        return a * (r + g + b) > 3 * 128;
    }).map(e => e.outerHTML.slice(0, 90))"""
BESIDE = """() => {
    const scrolls = e => e && (getComputedStyle(e).overflowX == 'auto'
                               || scrolls(e.parentElement.closest('.bd-article *')));
    return [...document.querySelectorAll('.bd-article :is(img, table, pre, mjx-container)')]
        .filter(e => e.offsetParent && e.getBoundingClientRect().right > innerWidth + 1)
        .filter(e => !scrolls(e)).map(e => e.outerHTML.slice(0, 90));
}"""

# Of each figure whether it scrolls sideways, and whether it says so.
HINTS = """() => [...document.querySelectorAll('figure')].filter(f => f.offsetParent)
    .map(figure => [
        [figure, ...figure.querySelectorAll('*')].some(
            e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX == 'auto'),
        getComputedStyle(figure, '::before').content.includes('swipe'), figure.id])"""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_legible_in_light_and_in_dark(tab, width, name):
    """And as wide as the window."""
    read(tab, name)
    assert tab.locator(".bd-article h1").first.is_visible()
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    assert tab.evaluate(broken) == []
    assert tab.locator("mjx-merror").count() == 0
    tab.add_style_tag(content="* {transition: none !important}")  # colors change at once
    for mode in ("light", "dark"):
        tab.emulate_media(color_scheme=mode)
        tab.wait_for_function("mode => document.documentElement.dataset.theme == mode", arg=mode)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, mode
        assert tab.evaluate(BESIDE) == [], mode
        contrasts = tab.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert [each for each in contrasts if each[0] < 4.5] == [], mode
    assert tab.evaluate(SHEETS) == []
    for scrolls, hints, figure in tab.evaluate(HINTS):
        assert hints == (scrolls and width == PHONE), f"{figure} scrolls: {scrolls}"
    filtered = "[...document.images].filter(i => getComputedStyle(i).filter != 'none').length"
    assert tab.evaluate(filtered) == 0  # a map keeps its colors


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_knob_changes_its_picture(tab, name):
    read(tab, name)
    for figure in tab.locator(".nb-sliders").all():
        for knob in figure.locator("input").all():
            knob.scroll_into_view_if_needed()
            seen = {shown(figure)}
            if knob.get_attribute("type") == "checkbox":
                knob.click()
                seen.add(shown(figure))
            else:
                seen |= drag(tab, figure, knob)
            assert len(seen) > 1, f"nothing changes by {knob.evaluate('k => k.outerHTML')[:200]}"


def drag(tab, figure, knob):
    """Drag a slider to both of its ends, step it back by a key; return the pictures seen."""
    box, seen = knob.bounding_box(), set()
    said = knob.locator("xpath=../output")
    values = json.loads(knob.get_attribute("data-values"))
    middle = box["y"] + box["height"] / 2
    share = (int(knob.input_value()) + 0.5) / len(values)
    tab.mouse.move(box["x"] + 8 + share * (box["width"] - 16), middle)
    tab.mouse.down()
    for end, value in ((box["width"] - 1, values[-1]), (1, values[0])):
        tab.mouse.move(box["x"] + end, middle, steps=4)
        seen.add(shown(figure))
        assert said.inner_text() == value
    tab.mouse.up()
    knob.press("End")
    assert said.inner_text() == knob.get_attribute("aria-valuetext") == values[-1]
    seen.add(shown(figure))
    knob.press("ArrowLeft")
    assert said.inner_text() == values[-2]
    return seen | {shown(figure)}


# How the panels of each row that can be seen stand: of how many in all, how many in each line.
LINES = """() => [...document.querySelectorAll('.nb-panels > div')].filter(row => row.offsetParent)
    .map(row => {
        const lines = {};
        for (const panel of row.children)
            (lines[panel.offsetTop] ??= []).push(panel);
        return [row.children.length, ...Object.values(lines).map(line => line.length)];
    })"""


@pytest.mark.parametrize("name", [*CHAPTERS, "own_world", "your_photograph"])
def test_panels_stack_where_it_is_narrow_and_text_keeps_its_size(tab, width, name):
    """Nothing that a figure's text is part of is drawn smaller than it was made.

    A row of panels that don't all fit breaks into lines of equally many.
    """
    read(tab, name)
    panels = tab.locator(".nb-panels img, .nb-frame img").all()
    seen = [panel for panel in panels if panel.is_visible()]
    assert seen
    for panel in seen:
        box = panel.bounding_box()
        assert box["width"] >= int(panel.get_attribute("width")) - 1 or width == PHONE
        group = panel.evaluate("p => p.parentElement.parentElement.className")
        if "nb-panels" in group and int(panel.get_attribute("width")) <= width:  # charts scroll
            assert box["width"] >= int(panel.get_attribute("width")) - 1
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
    for other in (PHONE, 360, 500) if width == PHONE else (WIDE, 1200, 960, 700, 600):
        tab.set_viewport_size({"width": other, "height": 900})
        for count, *lines in tab.evaluate(LINES):
            assert len(set(lines)) == 1, f"{count} panels stand as {lines} at {other} px"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_printed_line_is_clipped(tab, name):
    """Neither of source nor of what a cell prints."""
    read(tab, name)
    printed = ".cell_output :is([class*=highlight-], .output.stream) pre"
    cut = f"[...document.querySelectorAll('{printed}')]"
    assert tab.evaluate(f"{cut}.filter(p => p.scrollWidth > p.clientWidth).length") == 0


def test_the_playground_shows_mask_and_iou_beside_each_slider(tab, width):
    read(tab, "playground")
    figure = tab.locator(".nb-sliders").first
    knobs = figure.locator("input").all()
    assert len(knobs) == 5  # the phrase, alpha, the timestep, the steps, the threshold
    for knob in knobs:
        knob.scroll_into_view_if_needed()
        box = figure.locator(".nb-frame:not([hidden]) img").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 900
        assert box["x"] + box["width"] / 3 <= width  # the mask is the first of three panels


def test_the_menu_numbers_the_chapters_and_leaves_out_the_status(tab):
    read(tab, "index")
    menu = tab.locator("nav.bd-links").first
    entries = [entry.strip() for entry in menu.locator("a").all_text_contents()]
    numbered = [entry for entry in entries if entry[:1].isdigit()]
    assert [int(entry.split(".")[0]) for entry in numbered] == [*range(1, len(CHAPTERS))]
    assert not any("Status" in entry for entry in entries)


def test_there_are_knobs_to_turn(site):
    pages = [
        name for name in NOTEBOOKS if 'class="nb-sliders"' in (SITE / f"{name}.html").read_text()
    ]
    assert {"03_embeddings", "05_attention", "06_completion"} <= set(pages)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_solution_opens(tab, name):
    read(tab, name)
    folded = tab.locator(".admonition.dropdown, details.hide")
    assert folded.count(), "no folded solution"
    for solution in folded.all():
        inside = solution.locator("p:not(.admonition-title), li, pre").last
        assert not inside.is_visible()
        solution.locator("summary, .admonition-title").first.click()
        inside.wait_for(state="visible")


def test_a_word_is_found(tab):
    read(tab, "index")
    tab.locator(".search-button-field:visible, .search-button:visible").first.click()
    field = tab.locator("input[type=search]:visible")
    field.fill("noun chunk replacement")
    field.press("Enter")
    found = tab.locator("#search-results li a")
    found.first.wait_for()
    targets = [link.get_attribute("href") for link in found.all()]
    assert any("03_embeddings" in target for target in targets), targets
    found.first.click()
    tab.wait_for_url("**/*.html*")
    assert "search.html" not in tab.url


def test_a_button_changes_between_dark_and_light(tab):
    read(tab, "06_completion")
    grounds = {}
    for _ in range(3):  # the button goes through system, light, dark
        mode = tab.locator("html").get_attribute("data-theme")
        grounds[mode] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        tab.locator(".bd-header-article .theme-switch-button").click()
    assert set(grounds) == {"light", "dark"}
    assert grounds["light"] != grounds["dark"]


def test_paper_gets_stills_and_no_frame(tab):
    read(tab, "06_completion")
    tab.emulate_media(media="print")
    for frame in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".prev-next-footer"):
        assert not tab.locator(frame).first.is_visible()
    for figure in tab.locator(".nb-sliders").all():
        assert shown(figure)
        assert not figure.locator("input[type=range]").first.is_visible()
        assert figure.locator("output").first.is_visible()


@pytest.mark.parametrize("name", [*PAGES, "search", "genindex"])
def test_links_lead_somewhere_and_nothing_is_fetched(site, name):
    path = site / f"{name}.html"
    for tag, attributes in tags(path):
        target = attributes.get("href") or attributes.get("src") or ""
        link = urlsplit(target)
        if link.scheme in ("http", "https") or target.startswith("//"):
            is_link = tag == "a" or attributes.get("rel") in ("canonical", "license")
            assert is_link, f"{name} fetches {target}"
        elif target and not link.scheme:
            other = (path.parent / unquote(link.path)).resolve() if link.path else path
            assert other.is_file(), f"{name} links to {target}"
            if link.fragment and other.suffix == ".html":
                assert unquote(link.fragment) in anchors(other), f"{name} links to {target}"


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_has_words_and_every_figure_a_number(site, name):
    text = (site / f"{name}.html").read_text(encoding="utf-8")
    article = text[text.index("<article") : text.index("</article>")]
    figures = [part.partition("</figure>")[0] for part in article.split("<figure ")[1:]]
    for figure in figures:
        assert 'class="caption-number"' in figure
        assert 'class="caption-text"' in figure
    pictures = sum(figure.count("<img ") for figure in figures)
    assert pictures == article.count("<img "), "a picture without a number and a caption"
    for tag, attributes in tags(site / f"{name}.html"):
        if tag == "img":
            assert len(attributes.get("alt") or "") > 10, attributes.get("src", "")[:80]
    assert figures or name not in CHAPTERS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_that_runs_downloads_as_a_notebook(site, name):
    path = site / "_sources" / f"{name}.ipynb"
    assert any(
        attributes.get("href") == f"_sources/{name}.ipynb"
        for _, attributes in tags(site / f"{name}.html")
    )
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    assert any(cell.cell_type == "code" for cell in notebook.cells) or name not in CHAPTERS


@pytest.mark.parametrize("name", PAGES)
def test_no_page_needs_a_font_of_emoji(site, name):
    text = unescape((site / f"{name}.html").read_text(encoding="utf-8"))
    article = re.sub(r"<[^>]*>", "", text[text.index("<article") : text.index("</article>")])
    assert {sign for sign in article if unicodedata.category(sign) == "So"} == set()


def test_the_site_is_light(site):
    """What is read of it; the package's wheel is fetched by those who run a notebook."""
    read = [path for path in site.rglob("*") if path.is_file() and path.suffix != ".whl"]
    assert sum(path.stat().st_size for path in read) <= 30 * 2**20


@pytest.mark.parametrize("name", PAGES)
def test_the_package_downloads_from_every_page(site, name):
    (wheel,) = site.glob("*.whl")
    assert f'href="{wheel.name}"' in (site / f"{name}.html").read_text(encoding="utf-8")
