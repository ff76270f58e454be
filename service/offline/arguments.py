"""The command line of `score-dataset`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.cli import add_settings

SETTINGS = ("models", "provider", "threads", "max_batch", "max_pixels", "max_text_chars")
"""The service's settings that mean something here, each with its flag and its environment variable."""

_PART_SIZE = 10_000

_EXAMPLE = """\
example:
  python -m service score-dataset questions.csv --model trec-gru --output scored --alpha 0.01 --scores msp,energy
  python -c "import pandas; print(pandas.read_parquet('scored').query('flagged'))"

Interrupted, even by kill -9? Run the same command again: it goes on behind the parts that are written, and the rows
are those of a run without interruption. An input that cannot be scored becomes a row with its error.

exit codes: 0 complete, 1 the model cannot be run or nothing could be scored, 2 something in the command is wrong,
130 interrupted."""


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The arguments, and the settings among them (unvalidated strings)."""
    parser = argparse.ArgumentParser(
        prog="ood-serve score-dataset",
        description="Score a collection of any size into parquet files, with the rows that the HTTP API would answer.",
        epilog=_EXAMPLE,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=110),
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="A .parquet file or a folder of them, a folder of images (at any depth), or texts: .txt (one a line), "
        ".jsonl, .csv.",
    )
    parser.add_argument("--model", required=True, help="A name in the model repository, or a bundle's folder.")
    parser.add_argument("--version", help="Its version. [default the latest]")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="Where the parquet files go.")
    parser.add_argument("--column", help="The images or texts, in parquet, csv and jsonl. [default guessed; text]")
    parser.add_argument("--key", metavar="COLUMN", help="Copied to `key`. [default the row number; a file's path]")
    parser.add_argument("--scores", metavar="NAMES", help="As in msp,energy, or all. [default the model's own]")
    parser.add_argument("--alpha", help="False-flag rate. [default the model's own; env OOD_ALPHA]")
    parser.add_argument("--overwrite", action="store_true", help="Remove what another run wrote to the folder.")
    parser.add_argument(
        "--part-size",
        type=_positive,
        default=_PART_SIZE,
        metavar="N",
        help=f"Inputs per output file, which is what an interruption can lose. [default {_PART_SIZE}]",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="Score on the Ray cluster there (host:port, auto, or local for one on this machine), a worker per core, "
        "or per GPU with --provider cuda. Its nodes have this package, and see SOURCE and the model at the same paths.",
    )
    add_settings(parser, SETTINGS)
    arguments = parser.parse_args(argv)
    return arguments, {name: getattr(arguments, name) for name in SETTINGS if hasattr(arguments, name)}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
