"""Writes the tables of docs/api.md that follow from the code: routes, error types, settings and metrics.

`python docs/generate.py` updates the page; `python docs/generate.py --check` fails if the page is not current.
"""

import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog
from fastapi.routing import APIRoute

from service import Settings, create_app
from service.errors import Problem
from service.settings import env_name, flag_name
from service.telemetry.metrics import Metrics

PAGE = Path(__file__).with_name("api.md")


def routes() -> str:
    """Every HTTP route: its method, path and summary."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.touch()
        app = create_app(Settings(models=folder, admin_keys_file=keys, reload="admin", grpc_port=0))
        rows = []
        for route in app.routes:
            if isinstance(route, APIRoute) and not route.path.startswith("/inference."):
                methods = ", ".join(sorted(route.methods - {"HEAD"}))
                rows.append((f"{methods} `{route.path}`", route.summary or _first_line(route.endpoint.__doc__)))
    return _table(("call", "answer"), rows)


def errors() -> str:
    """Every error type with its HTTP status and title."""
    rows = {(str(it.status), f"`{it.type}`", it.title, _first_line(it.__doc__)) for it in _problems(Problem)}
    return _table(("status", "type", "title", "meaning"), sorted(rows))


def settings() -> str:
    """Every setting: environment variable, flag, default and description."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append((f"`{env_name(name)}`", f"`{flag_name(name)}`", default, field.description or ""))
    return _table(("variable", "flag", "default", "meaning"), rows)


def metrics() -> str:
    """Every metric of the service: name, type, labels and help text."""
    rows = []
    for metric in vars(Metrics()).values():
        described = getattr(metric, "describe", None)
        if described is None or not hasattr(metric, "_labelnames"):
            continue
        family = described()[0]
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append((f"`{name}`", family.type, ", ".join(metric._labelnames), family.documentation))
    return _table(("metric", "type", "labels", "meaning"), rows)


SECTIONS: dict[str, Callable[[], str]] = {"routes": routes, "errors": errors, "settings": settings, "metrics": metrics}


def render(text: str) -> str:
    """`text` with the content between each pair of markers replaced by its current table."""
    for name, section in SECTIONS.items():
        marker = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert marker.search(text), f"docs/api.md has no marker for {name}"
        table = section()
        text = marker.sub(lambda match, table=table: f"{match[1]}{table}{match[2]}", text)
    return text


def main(arguments: Sequence[str]) -> int:
    """Update the page, or check it; the exit code is 1 if `--check` finds it out of date."""
    # The application logs at construction; the tables are the only output here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    text = PAGE.read_text(encoding="utf-8")
    current = render(text)
    if "--check" in arguments:
        if text != current:
            print("docs/api.md is out of date: run `python docs/generate.py`", file=sys.stderr)
        return int(text != current)
    PAGE.write_text(current, encoding="utf-8")
    return 0


def _problems(base: type[Problem]) -> Iterator[type[Problem]]:
    for error in base.__subclasses__():
        # A class without a type of its own is a group of errors, not an answer.
        if "type" in vars(error) or error.__name__ == "InternalError":
            yield error
        yield from _problems(error)


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n")[0]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
