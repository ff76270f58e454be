"""The command `new-key NAME`: generates an API key and its line of the key file."""

import argparse
import secrets
import sys
from collections.abc import Sequence

from service.auth.api_keys import NAME, digest_of

# Secret scanners detect leaked keys by this prefix.
_PREFIX = "ood_"


def main(argv: Sequence[str]) -> int:
    """Print the line of the key file to stdout, so that `>> keys` appends it, and the key to stderr."""
    parser = argparse.ArgumentParser(
        prog="ood-serve new-key",
        description="Make an API key. Its line for OOD_API_KEYS_FILE goes to stdout, the key to stderr. The key is "
        "shown only once, because only its hash is stored.",
        epilog="example: ood-serve new-key alice >> keys",
    )
    parser.add_argument("name", type=_name, metavar="NAME", help="Owner of the key; the log shows it for each request.")
    name = parser.parse_args(argv).name
    key = _PREFIX + secrets.token_urlsafe(32)
    print(f"{name} sha256:{digest_of(key)}", flush=True)
    print(f"The key of {name}, shown only now: {key}", file=sys.stderr)
    return 0


def _name(text: str) -> str:
    if NAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("a name is 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    return text
