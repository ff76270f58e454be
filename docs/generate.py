"""Writes the tables of the documentation that follow from the code, the bundles' reports and the benchmarks' results.

docs/api.md has the service's routes, error types, settings and metrics; README.md and docs/results.md have results.
`python docs/generate.py` updates the pages; `python docs/generate.py --check` fails if a page is not current.
"""

import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog
from fastapi.routing import APIRoute
from openood_table import OPENOOD_SECTIONS
from result_tables import RESULT_SECTIONS, Table, overview
from speed_tables import SPEED_SECTIONS, TOPOLOGY_SECTIONS, serving

from service import Settings, create_app
from service.errors import INPUT_ERRORS, Problem
from service.settings import default_text, env_name, flag_name
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[1]


def routes() -> Table:
    """Every HTTP route: its method, path and summary."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.touch()
        app = create_app(Settings(models=folder, admin_keys_file=keys, reload="admin", grpc_port=0))
        rows = []
        for route in app.routes:
            if isinstance(route, APIRoute) and not route.path.startswith(("/inference.", "/grpc.")):
                methods = ", ".join(sorted(route.methods - {"HEAD"}))
                rows.append((f"{methods} `{route.path}`", route.summary or _first_line(route.endpoint.__doc__)))
    return ("call", "answer"), rows


def errors() -> Table:
    """Every error type with its HTTP status and title."""
    rows = {(str(it.status), f"`{it.type}`", it.title, _first_line(it.__doc__)) for it in _problems(Problem)}
    return ("status", "type", "title", "meaning"), sorted(rows)


def input_errors() -> Table:
    """Every error type of a single input, with the status that it gives a whole request."""
    return ("status", "type", "meaning"), [
        (str(status), f"`{name}`", meaning) for name, (status, meaning) in INPUT_ERRORS.items()
    ]


def settings() -> Table:
    """Every setting: environment variable, flag, default and description."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = (
            default_text(field) if field.default_factory else "" if field.default is None else f"`{field.default}`"
        )
        rows.append((f"`{env_name(name)}`", f"`{flag_name(name)}`", default, field.description or ""))
    return ("variable", "flag", "default", "meaning"), rows


def metrics() -> Table:
    """Every metric of the service: name, type, labels and help text."""
    rows = []
    for metric in vars(Metrics()).values():
        described = getattr(metric, "describe", None)
        if described is None or not hasattr(metric, "_labelnames"):
            continue
        family = described()[0]
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append((f"`{name}`", family.type, ", ".join(metric._labelnames), family.documentation))
    return ("metric", "type", "labels", "meaning"), rows


PAGES: Mapping[str, Mapping[str, Callable[[], Table]]] = {
    "docs/api.md": {
        "routes": routes,
        "errors": errors,
        "input-errors": input_errors,
        "settings": settings,
        "metrics": metrics,
    },
    "docs/results.md": {**RESULT_SECTIONS, **OPENOOD_SECTIONS, **SPEED_SECTIONS},
    "docs/performance.md": TOPOLOGY_SECTIONS,
    "README.md": {"results": overview, "serving": serving},
}
"""Page -> the name of each of its markers -> the function that makes the table between the markers."""


def render(page: str) -> str:
    """The text of `page` with the content between each pair of markers replaced by its current table."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, section in PAGES[page].items():
        marker = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert marker.search(text), f"{page} has no marker for {name}"
        table = _markdown(*section())
        text = marker.sub(lambda match, table=table: f"{match[1]}{table}{match[2]}", text)
    return text


def main(arguments: Sequence[str]) -> int:
    """Update the pages, or check them; the exit code is 1 if `--check` finds one out of date."""
    # The application logs at construction; the tables are the only output here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    current = {ROOT / page: render(page) for page in PAGES}
    outdated = [path for path, text in current.items() if path.read_text(encoding="utf-8") != text]
    for path in outdated:
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)} is out of date: run `make docs`", file=sys.stderr)
        else:
            path.write_text(current[path], encoding="utf-8")
    return int("--check" in arguments and bool(outdated))


def _problems(base: type[Problem]) -> Iterator[type[Problem]]:
    for error in base.__subclasses__():
        # A class without a type of its own is a group of errors, not an answer.
        if "type" in vars(error) or error.__name__ == "InternalError":
            yield error
        yield from _problems(error)


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n")[0]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
