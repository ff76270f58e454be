"""Offline scoring: collections of any size from files to parquet, with the rows that the HTTP API would answer."""

import sys
from collections.abc import Sequence

_NEEDED = frozenset({"pyarrow", "tqdm"})


def main(argv: Sequence[str]) -> int:
    """`python -m service score-dataset ...`; the exit code is that of `service.offline.command.main`."""
    # pyarrow is large, and not among what the service needs: it is imported by those who score a collection.
    try:
        from service.offline import command  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in _NEEDED:
            raise
        print(f"score-dataset: {error.name} is missing. Install the extra: pip install '.[offline]'", file=sys.stderr)
        return 2
    return command.main(argv)
