"""Offline scoring of files into parquet, without a server. May import the repository and the layers below it."""

import sys
from collections.abc import Sequence

_REQUIRED = frozenset({"pyarrow", "tqdm"})


def main(argv: Sequence[str]) -> int:
    """Run `score-dataset`; see `service.offline.command.main` for the exit codes."""
    # Imported on demand: the packages are large, and only this command needs them.
    try:
        from service.offline import command  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in _REQUIRED:
            raise
        print(f"score-dataset: {error.name} is missing. Install the extra: pip install '.[offline]'", file=sys.stderr)
        return 2
    return command.main(argv)
