"""`python -m service new-key NAME`: a key for a client, and the line of the key file that lets it in."""

import argparse
import secrets
import sys
from collections.abc import Sequence

from service.auth.api_keys import NAME, digest_of

# Scanners for secrets find a leaked key by its prefix.
_PREFIX = "ood_"


def main(argv: Sequence[str]) -> int:
    """Print the line on stdout, so that `>> keys` appends it, and the key, once, on stderr."""
    parser = argparse.ArgumentParser(
        prog="ood-serve new-key",
        description="Make an API key. Its line for OOD_API_KEYS_FILE goes to stdout, the key itself to stderr; only "
        "its hash is stored, so it is shown this once.",
        epilog="example: ood-serve new-key alice >> keys",
    )
    parser.add_argument("name", type=_name, metavar="NAME", help="Whose key it is; the log shows it for each request.")
    name = parser.parse_args(argv).name
    key = _PREFIX + secrets.token_urlsafe(32)
    print(f"{name} sha256:{digest_of(key)}", flush=True)
    print(f"The key of {name}, shown only now: {key}", file=sys.stderr)
    return 0


def _name(text: str) -> str:
    if NAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("a name is 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    return text
