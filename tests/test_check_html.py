"""The HTML report: what is in it, and in headless Chromium that it draws, zooms by keyboard and asks for nothing.

Chromium is the Debian package ``chromium``, or ``playwright install chromium``.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from _check_report import failing_report, passing_report

from gated.conformance.grading.html import DARK, LIGHT, describe, page
from gated.conformance.grading.report import Diagnosis, Finding, Picture, Report

pytest.importorskip("jinja2", reason="pip install 'gated[report]'")
pytest.importorskip("plotly", reason="pip install 'gated[report]'")

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)><b>b</b>\x1b[31m\u202e{{ 7*7 }}:f"
)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and their texts outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def hostile() -> Report:
    """A report each of whose texts tries to get out."""
    report = failing_report(HOSTILE)
    report.claim = report.framework = HOSTILE
    report.findings.append(Finding("raises", "failure", HOSTILE, "", {HOSTILE: [HOSTILE]}, HOSTILE))
    report.diagnosis.append(Diagnosis("gate-order", HOSTILE, {"x": {HOSTILE: HOSTILE}}))
    report.versions[HOSTILE] = HOSTILE
    one = report.pictures[0]
    report.pictures[0] = Picture(
        one.dtype, one.quantity, HOSTILE, one.inputs, one.errors, one.bounds, [HOSTILE] * len(one.inputs), one.exact
    )
    return report


def test_nothing_of_the_report_becomes_markup() -> None:
    elements, usual = Elements(page(hostile())), Elements(page(failing_report()))
    assert len(elements.all("script")) == len(usual.all("script")) == 3
    assert not elements.all("img")
    assert "{{ 7*7 }}" in elements.text
    assert "\\x1b[31m\\u202e" in elements.text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", elements.text)


def test_the_page_names_nothing_outside_itself() -> None:
    elements = Elements(page(failing_report()))
    for tag, attributes in elements.found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert {attributes.get("rel") for attributes in elements.all("link")} == {"icon"}
    (policy,) = (one["content"] for one in elements.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]


def test_verdict_claim_findings_and_diagnosis_are_there() -> None:
    text = Elements(page(failing_report())).text
    for part in ("Fail", "kernels.ops:swiglu", "swiglu, packed, gate_first", "nan-at-infinity", "tail-underflow"):
        assert part in text
    assert "1.61e+07" in text
    passing = Elements(page(passing_report())).text
    assert "Pass" in passing
    assert "Diagnosis" not in passing


def test_headings_go_down_one_by_one_and_controls_have_names() -> None:
    elements = Elements(page(failing_report()))
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = [tag for tag, _ in elements.found]
    assert names.count("main") == names.count("header") == names.count("nav") == names.count("footer") == 1
    identifiers = [one["id"] for _, one in elements.found if "id" in one]
    assert len(identifiers) == len(set(identifiers))
    for tag, attributes in elements.found:
        assert attributes.get("aria-labelledby", identifiers[0]) in identifiers
        if attributes.get("role") in ("img", "region", "toolbar"):
            assert attributes.get("aria-label") or attributes.get("aria-labelledby"), (tag, attributes)


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_have_the_contrast_of_wcag_aa(palette: dict[str, str]) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for ground in ("background", "panel"):
        for name in ("text", "muted", "accent", "pass", "fail", "known"):
            assert contrast(palette[name], palette[ground]) >= 4.5, (name, ground)
        for name in ("line", "bound"):  # borders of controls, and lines of a picture
            assert contrast(palette[name], palette[ground]) >= 3, (name, ground)


def test_a_picture_in_words() -> None:
    inputs = [-2.0, 1.0, 3.0, 5.0]
    picture = Picture(
        "float32", "d x", "x", inputs, [math.inf, 7.0, 0.5, 6.0], [5.0, 5.0, 0.5, math.inf], ["0"] * 4, ["0"] * 4
    )
    assert describe(picture) == (
        "Errors of d x in float32 at 4 inputs, x from -2 to 5; the largest finite one is 7 ulp, at x = 1; "
        "1 are of a wrong class; 2 are past their bound."
    )
    assert (
        describe(Picture("float32", "value", "x", [], [], [], [], [])) == "No errors of value in float32 were recorded."
    )


# In Chromium

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as session:
        try:
            browser = session.chromium.launch(executable_path=CHROMIUM)
        except playwright.Error as error:
            pytest.skip(f"no Chromium starts: apt-get install chromium, or playwright install chromium: {error}")
        yield browser
        browser.close()


class Opened:
    """A page of a report, and what went wrong on it."""

    def __init__(self, chromium: Any, file: Path, report: Report, scheme: str = "light") -> None:
        file.write_text(page(report), encoding="utf-8", newline="\n")
        self.context = chromium.new_context(color_scheme=scheme, viewport={"width": 1100, "height": 900})
        self.tab = self.context.new_page()
        self.told: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", lambda message: self.told.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.told.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.told.append("dialog"), dialog.dismiss()))
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(file.as_uri())
        if report.pictures:
            self.tab.wait_for_selector(f"#chart-{len(report.pictures) - 1} .xtick")

    def range(self, index: int = 0) -> tuple[float, float]:
        first, last = self.tab.evaluate(f"document.getElementById('chart-{index}').layout.xaxis.range")
        return first, last

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)

    def colour(self, selector: str, what: str) -> str:
        return str(self.tab.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{what}"))


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    pages: list[Opened] = []

    def put(report: Report, scheme: str = "light") -> Opened:
        pages.append(Opened(chromium, tmp_path / f"{len(pages)}.html", report, scheme))
        return pages[-1]

    yield put
    for one in pages:
        assert one.told == []
        assert [url for url in one.requests if not url.startswith(("file:", "data:"))] == []
        assert len([url for url in one.requests if url.startswith("file:")]) == 1
        one.context.close()


def test_the_page_shows_the_verdict_and_draws_every_picture(opened: Any) -> None:
    shown = opened(failing_report())
    assert shown.tab.inner_text("#verdict") == "Fail"
    assert shown.tab.inner_text("h1") == "kernels.ops:swiglu"
    assert shown.tab.locator(".chart .main-svg").count() >= 2
    for index in (0, 1):
        chart = shown.tab.locator(f"#chart-{index}")
        assert chart.locator(".scatterlayer .trace").count() == 4
        assert chart.locator(".xy .points path").count() > 900
        assert chart.locator(".xy2 .points path").count() > 10, "errors of a wrong class stand apart"
        assert len(chart.locator(".xy .js-line").all()) == 2


def test_the_bound_and_the_errors_are_where_they_belong(opened: Any) -> None:
    report = failing_report()
    shown = opened(report)
    bound = shown.tab.evaluate("document.getElementById('chart-1').data[2].y")
    assert bound == pytest.approx([math.log10(8)] * len(bound))
    x, y = shown.tab.evaluate(
        "[document.getElementById('chart-1').data[1].x, document.getElementById('chart-1').data[1].y]"
    )
    past = [(at, error) for at, error in zip(x, y, strict=True) if error is not None]
    # The symmetric logarithm of -2^6.5, with the smallest float32, 2^-149, as its unit.
    assert past == [(pytest.approx(-(6.5 + 149)), pytest.approx(math.log10(16.1e6)))]
    error = shown.tab.evaluate("document.getElementById('chart-1').data[0].y")
    at_one = report.pictures[1].inputs.index(1.0)
    assert error[at_one] == pytest.approx(math.log10(report.pictures[1].errors[at_one]))


def test_a_picture_zooms_and_moves_by_keyboard(opened: Any) -> None:
    shown = opened(failing_report())
    first, last = shown.range()
    shown.tab.focus("#chart-0")
    shown.press("+")
    near, far = shown.range()
    assert far - near == pytest.approx((last - first) / 2)
    assert near + far == pytest.approx(first + last)
    shown.press("ArrowRight")
    moved, _ = shown.range()
    assert moved == pytest.approx(near + (far - near) / 4)
    shown.press("ArrowLeft", "-")
    assert shown.range() == pytest.approx((first, last))
    shown.press("-")
    assert shown.range() == pytest.approx((first, last)), "no wider than the whole"
    shown.press("+", "+", "+", "0")
    assert shown.range() == pytest.approx((first, last))
    for _ in range(24):
        shown.press("+")
    near, far = shown.range()
    assert 0 < far - near < 1e-4
    assert shown.range(1) == pytest.approx((first, last)), "the other picture stays"


def test_the_ticks_follow_the_zoom(opened: Any) -> None:
    shown = opened(failing_report())
    labels = shown.tab.locator("#chart-0 .xtick").all_text_contents()
    assert "0" in labels
    assert "1e20" in labels
    shown.tab.focus("#chart-0")
    shown.press("+", "ArrowRight", "+", "+", "+", "+", "+", "+", "+")
    nearer = [float(label) for label in shown.tab.locator("#chart-0 .xtick").all_text_contents()]
    assert len(nearer) >= 2
    assert nearer == sorted(nearer)
    positions = shown.tab.evaluate("document.getElementById('chart-0').layout.xaxis.tickvals")
    for tick, at in zip(nearer, positions, strict=True):
        assert at == pytest.approx(math.log2(1 + tick * 2.0**149), abs=1e-6)


def test_buttons_are_reached_by_tab_and_do_the_same(opened: Any) -> None:
    shown = opened(failing_report())
    whole = shown.range()
    for _ in range(200):
        shown.press("Tab")
        if shown.tab.evaluate("document.activeElement.dataset.action") == "in":
            break
    shown.press("Enter")
    assert shown.range() != pytest.approx(whole)
    for _ in range(4):
        shown.press("Tab")
    assert shown.tab.evaluate("document.activeElement.textContent") == "Show all"
    shown.press("Space")
    assert shown.range() == pytest.approx(whole)


def test_a_picture_holds_no_key_that_is_not_its_own(opened: Any) -> None:
    shown = opened(failing_report())
    shown.tab.focus("#chart-0")
    shown.press("+")
    near = shown.range()
    shown.press("x", "Control+ArrowRight", "Tab")
    assert shown.range() == pytest.approx(near)
    assert shown.tab.evaluate("document.activeElement.id") != "chart-0"


def test_points_are_read_one_by_one_and_as_a_table(opened: Any) -> None:
    report = failing_report()
    shown = opened(report)
    shown.tab.focus("#chart-0")
    shown.press(".")
    assert shown.tab.inner_text("#point-0").startswith("gate = -1.7")
    assert "wrong class" in shown.tab.inner_text("#point-0")
    shown.press(",")
    shown.press(*["."] * 60)
    assert re.fullmatch(
        r"gate = .*: [0-9.e+]+ ulp, bound 5 ulp; computed .*, exact .*", shown.tab.inner_text("#point-0")
    )
    shown.tab.wait_for_selector("#chart-0 .hoverlayer .hovertext")
    shown.tab.click("#chart-1 ~ details summary")
    rows = shown.tab.locator("#chart-1 ~ details tbody tr")
    rows.first.wait_for()
    assert rows.count() == len(report.pictures[1].inputs)
    assert rows.first.inner_text().split("\t")[1] == "wrong class"


def test_the_mouse_zooms_and_hovers(opened: Any) -> None:
    shown = opened(failing_report())
    whole = shown.range()
    shown.tab.locator("#chart-0").scroll_into_view_if_needed()
    box = shown.tab.locator("#chart-0 .nsewdrag").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    shown.tab.mouse.move(box["x"] + box["width"] * 0.5, middle)
    shown.tab.mouse.down()
    shown.tab.mouse.move(box["x"] + box["width"] * 0.75, middle, steps=5)
    shown.tab.mouse.up()
    shown.tab.wait_for_timeout(500)
    near, far = shown.range()
    assert far - near == pytest.approx((whole[1] - whole[0]) / 4, rel=0.1)
    texts = shown.tab.evaluate("document.getElementById('chart-0').layout.xaxis.ticktext")
    assert "-1" not in texts, "the ticks are those of the range"
    at = shown.tab.locator("#chart-0 .xy .points path").nth(700).bounding_box()
    if at is not None:
        shown.tab.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
        shown.tab.wait_for_selector("#chart-0 .hoverlayer .hovertext")


@pytest.mark.parametrize(("scheme", "palette", "other"), [("light", LIGHT, DARK), ("dark", DARK, LIGHT)])
def test_both_colour_schemes_and_the_toggle(
    opened: Any, scheme: str, palette: dict[str, str], other: dict[str, str]
) -> None:
    def rgb(colour: str) -> str:
        return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"

    shown = opened(failing_report(), scheme)
    for colours, pressed in ((palette, scheme == "dark"), (other, scheme == "light"), (palette, scheme == "dark")):
        assert shown.colour("body", "backgroundColor") == rgb(colours["background"])
        assert shown.colour("h1", "color") == rgb(colours["text"])
        assert shown.colour("#verdict", "color") == rgb(colours["fail"])
        assert shown.tab.evaluate("document.getElementById('chart-0').layout.paper_bgcolor") == colours["background"]
        assert shown.tab.get_attribute("#theme", "aria-pressed") == str(pressed).lower()
        shown.tab.focus("#theme")
        shown.press("Enter")


def test_a_zoom_survives_the_other_colours(opened: Any) -> None:
    shown = opened(failing_report())
    shown.tab.focus("#chart-0")
    shown.press("+", "+", "ArrowRight")
    before = shown.range()
    shown.tab.click("#theme")
    assert shown.range() == pytest.approx(before)


def test_a_hostile_report_stays_text(opened: Any) -> None:
    shown = opened(hostile())
    assert shown.tab.inner_text("h1").startswith("</script><script>document.title='owned'</script><img src=x")
    assert "owned" in shown.tab.title()
    assert shown.tab.title().startswith("Fail: </script>")
    assert shown.tab.locator("img").count() == 0
    shown.tab.focus("#chart-0")
    shown.press(".")
    shown.tab.wait_for_selector("#chart-0 .hoverlayer .hovertext")
    assert "<img src=x" in shown.tab.inner_text("#point-0")
    assert "<b>b</b>" in (shown.tab.text_content("#chart-0 .hoverlayer .hovertext") or "")
    assert shown.tab.locator("img").count() == 0


def test_the_whole_range_of_float64_is_drawn(opened: Any) -> None:
    report = passing_report()
    inputs = [-1.7e308, -5e-324, 0.0, 5e-324, 1e-300, 1.7e308]
    errors = [1.7e308, 5e-324, 0.0, 0.5, math.inf, 1.7e308]
    report.pictures = [Picture("float64", "value", "x", inputs, errors, [5.0] * 6, ["1"] * 6, ["1"] * 6)]
    shown = opened(report)
    x, y, range_ = shown.tab.evaluate(
        "(({data, layout}) => [data[0].x, data[0].y, layout.yaxis.range])(document.getElementById('chart-0'))"
    )
    assert x == pytest.approx([-2098, -1, 0, 1, 1074 - 300 * math.log2(10), 2098], abs=0.1)
    assert y == [pytest.approx(308.23, abs=0.01), -3, -3, pytest.approx(math.log10(0.5)), None, y[0]]
    assert range_[1] > 308
    labels = shown.tab.locator("#chart-0 .xtick").all_text_contents()
    assert {"0", "1e200", "-1e200"} <= set(labels)


@pytest.mark.parametrize("count", [0, 1])
def test_a_picture_of_hardly_any_points_is_drawn(opened: Any, count: int) -> None:
    report = passing_report()
    report.pictures = [
        Picture("float16", "value", "x", [1.0] * count, [0.0] * count, [0.51] * count, ["1"] * count, ["1"] * count)
    ]
    shown = opened(report)
    assert shown.tab.inner_text("#verdict") == "Pass"
    first, last = shown.range()
    assert first < last
