"""The page of a data check: one HTML file without scripts, which loads nothing."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from training.console import visible
from training.data_check.checked_set import CheckedSet
from training.data_check.finding import Example, Finding, Place
from training.data_check.report import DataCheck, SetSummary

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
section { border-left: 4px solid #7f7f7f; padding: .1rem 1rem; margin: 1.5rem 0; }
section.error { border-color: #b3261e; } section.warning { border-color: #b26a00; }
h2 { font-size: 1.05rem; } li { margin: .5rem 0; overflow-wrap: anywhere; }
img { width: 64px; height: 64px; image-rendering: pixelated; margin-right: .5rem; vertical-align: middle; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd; } }
"""


def page(report: DataCheck, sets: Sequence[CheckedSet]) -> str:
    """The HTML of a report, with small copies of the images that its examples name."""
    by_name = {checked.name: checked for checked in sets}
    summary = f"{report.errors} errors, {report.warnings} warnings" if report.findings else "Nothing was found."
    sections = "".join(_section(finding, by_name) for finding in report.findings)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>Data check</title><style>{_STYLE}</style></head><body><h1>Data check</h1>"
        f"{_sets_table(report.sets)}<p>{summary}</p>{sections}</body></html>\n"
    )


def _sets_table(sets: Sequence[SetSummary]) -> str:
    rows = "".join(
        f"<tr><td>{_text(item.name)}</td><td>{_text(item.path)}</td><td>{item.usable:,}</td><td>{item.unusable:,}</td>"
        f"<td>{'' if item.classes is None else f'{len(item.classes):,}'}</td></tr>"
        for item in sets
    )
    head = "".join(f"<th>{name}</th>" for name in ("set", "path", "usable inputs", "unusable", "classes"))
    return f"<table><tr>{head}</tr>{rows}</table>"


def _section(finding: Finding, sets: dict[str, CheckedSet]) -> str:
    examples = "".join(f"<li>{_example(example, sets)}</li>" for example in finding.examples)
    return (
        f'<section class="{finding.severity}"><h2>{finding.severity}: {_text(finding.check)}</h2>'
        f"<p>{_text(finding.message)}.</p><p>{_text(finding.remedy)}.</p>"
        + (f"<ul>{examples}</ul>" if examples else "")
        + "</section>"
    )


def _example(example: Example, sets: dict[str, CheckedSet]) -> str:
    images = "".join(_image(place, sets[place.set]) for place in example.places)
    return images + _text(str(example))


def _image(place: Place, checked: CheckedSet) -> str:
    """The image at `place`; nothing if it is a text or cannot be read."""
    index = np.flatnonzero(checked.rows.numbers == place.row)
    if checked.images is None or not len(index):
        return ""
    buffer = BytesIO()
    Image.fromarray(checked.images[index[:1]][0]).save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _text(text: str) -> str:
    """The text as HTML, with control characters shown."""
    return escape(visible(text))
