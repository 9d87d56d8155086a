"""A report as one HTML page that needs nothing else: no network, no other file.

The page's code is in ``page/``: ``report.html.j2`` (Jinja2, all texts escaped), ``report.css`` and ``report.js``;
plotly's own script is put in beside them. A Content-Security-Policy forbids every request and every script but these
two, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from gated.conformance.error import FORMATS
from gated.conformance.grading.report import ABSENT, FAILURE, NOTE, Picture, Report
from gated.conformance.grading.terminal import number, plain, row_verdict, shown

__all__ = ["DARK", "LIGHT", "page"]

LIGHT: Final[Mapping[str, str]] = {
    "background": "#ffffff",
    "panel": "#f3f5f7",
    "text": "#1b1f24",
    "muted": "#545d68",
    "line": "#7d8590",
    "grid": "#d8dee4",
    "accent": "#0550ae",
    "pass": "#116329",
    "fail": "#a40e26",
    "known": "#744500",
    "bound": "#953800",
}
"""The colours of the light scheme, by what they are for."""

DARK: Final[Mapping[str, str]] = {
    "background": "#0d1117",
    "panel": "#171d25",
    "text": "#e6edf3",
    "muted": "#a2acb8",
    "line": "#768390",
    "grid": "#2b333d",
    "accent": "#79c0ff",
    "pass": "#56d364",
    "fail": "#ff7b72",
    "known": "#e3b341",
    "bound": "#ffa657",
}
"""Those of the dark one."""

# plotly sets styles of its own; the icon is an empty data URL.
_POLICY: Final = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_VERDICTS: Final = {"pass": "Pass", "known": "Known", "fail": "Fail", "error": "Error"}
_SEVERITIES: Final = {FAILURE: "Failures", ABSENT: "Absent", NOTE: "Notes"}


def page(report: Report) -> str:
    """The page, whole. Needs the packages jinja2 and plotly."""
    import jinja2
    import markupsafe
    from plotly.offline import get_plotlyjs

    def safe(value: Any) -> Any:
        return plain(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value

    environment = jinja2.Environment(
        autoescape=True, finalize=safe, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    scripts = [_script(get_plotlyjs()), _script(_part("report.js"))]
    hashes = " ".join(f"'sha256-{_digest(one)}'" for one in scripts)
    template = environment.from_string(_part("report.html.j2"))
    return template.render(
        report=report,
        policy=f"default-src 'none'; script-src {hashes}; {_POLICY}",
        verdicts=_VERDICTS,
        severities=_SEVERITIES,
        light=LIGHT,
        dark=DARK,
        css=markupsafe.Markup(_part("report.css")),
        plotly=markupsafe.Markup(scripts[0]),
        script=markupsafe.Markup(scripts[1]),
        data=markupsafe.Markup(_data(report.pictures)),
        pictures=[(index, _title(one), describe(one)) for index, one in enumerate(report.pictures)],
        row_verdict=lambda row: row_verdict(report, row),
        number=number,
        shown=shown,
    )


def describe(picture: Picture) -> str:
    """A picture in words, for those who do not see it."""
    count = len(picture.errors)
    if not count:
        return f"No errors of {_title(picture)} were recorded."
    finite = [(error, at) for error, at in zip(picture.errors, picture.inputs, strict=True) if math.isfinite(error)]
    past = sum(error > bound for error, bound in zip(picture.errors, picture.bounds, strict=True))
    parts = [
        f"Errors of {_title(picture)} at {count:,} inputs, {picture.axis} from {min(picture.inputs):.3g} "
        f"to {max(picture.inputs):.3g}"
    ]
    if finite:
        worst, at = max(finite)
        parts.append(f"the largest finite one is {number(worst)} ulp, at {picture.axis} = {at:.6g}")
    parts.append(f"{count - len(finite):,} are of a wrong class")
    parts.append(f"{past:,} are past their bound")
    return "; ".join(parts) + "."


def _title(picture: Picture) -> str:
    return f"{picture.quantity} in {picture.dtype}"


def _data(pictures: Sequence[Picture]) -> str:
    """The pictures as JSON that can stand in a script element: in ASCII, with no ``<``, ``>`` or ``&``."""
    content = [
        {
            "title": plain(_title(one)),
            "axis": plain(one.axis),
            "smallest": FORMATS[one.dtype].smallest_subnormal,
            "points": sorted(
                zip(
                    map(float, one.inputs),
                    map(_finite, one.errors),
                    map(_finite, one.bounds),
                    map(plain, one.computed),
                    map(plain, one.exact),
                    strict=True,
                ),
                key=lambda point: point[0],
            ),
        }
        for one in pictures
    ]
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(error: float) -> float | None:
    """The error, None for infinity."""
    return float(error) if math.isfinite(error) else None


def _script(text: str) -> str:
    """A script as it may stand in a script element: nothing in it ends the element, or begins a comment of HTML."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", text.replace("\r\n", "\n"), flags=re.IGNORECASE)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _part(name: str) -> str:
    return (files("gated.conformance.grading") / "page" / name).read_text(encoding="utf-8")
