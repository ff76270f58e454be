"""The command line of `ood-serve`: one flag per setting, with its default and environment variable in `--help`."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from service.settings import SETTINGS_FILE_ENV, Settings, default_text, env_name, flag_name


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], Path | None]:
    """Parse the command line.

    Returns:
        The settings that are set by flags, as strings that are not validated, and the settings file if one is named.
    """
    parser = argparse.ArgumentParser(
        prog="ood-serve",
        description="Serve out-of-distribution detectors over HTTP.",
        epilog="Each setting is a flag, an environment variable, or a key of the settings file, in this order. "
        "`ood-serve new-key NAME` makes an API key; `ood-serve score-dataset` scores files.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=110),
        allow_abbrev=False,
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help=f"YAML or TOML file. [env {SETTINGS_FILE_ENV}]")
    add_settings(parser, Settings.model_fields)
    flags = vars(parser.parse_args(argv))
    file = flags.pop("settings")
    return flags, file


def add_settings(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Add a flag for each of the settings `names`. A flag that is not used leaves no attribute in the namespace."""
    for name in names:
        field = Settings.model_fields[name]
        text = f"{field.description} [default {default_text(field)}; env {env_name(name)}]".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(
                flag_name(name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            parser.add_argument(flag_name(name), default=argparse.SUPPRESS, metavar=_metavar(field), help=text)


def _metavar(field: Any) -> str:
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    return "|".join(choices) if choices else "VALUE"
