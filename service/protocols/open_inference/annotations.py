"""Decides about the keys of a request that this service does not use: annotations are ignored, mistakes are refused.

Clients of the protocol send more keys than the specification has: KServe's sends `model_name`, Triton's `priority` and
`sequence_id`, MLServer's `content_type`. A request with a mistyped or misplaced option must not be scored without it.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

from service.errors import InvalidParameter
from service.scoring.options import OPTION_NAMES

PARAMETERS_LOCATION = "parameters."
"""The location of a request's `parameters` in errors."""

BINARY_OUTPUT = "binary_data_output"
PARAMETERS = (*(name for name in OPTION_NAMES if name != "explain"), BINARY_OUTPUT)
"""This service's names in a request's `parameters`. Explanations are not among them, because they are no tensors."""

# Names of other servers that resemble an option of this service.
_FOREIGN = frozenset({"timeout"})
_SHARED_MEMORY = "shared_memory_"
_FIELDS = ("inputs", "outputs", "parameters", "datatype", "shape", "data", "binary_data", "binary_data_size")
# The words of a name that make it resemble an option, and that option.
_WORDS = {"alpha": "alpha", "threshold": "threshold", "scores": "scores", "timeout": "timeout_ms", "explain": "explain"}
_WORD = re.compile(r"[^\W_]+?(?=[A-Z_\W]|$)|[A-Z][^\W_]*?(?=[A-Z_\W]|$)")
# The share of equal characters from which a name counts as a misspelling.
_SIMILAR_NAME, _SIMILAR_WORD = 0.75, 0.8
# A comparison takes up to a tenth of a millisecond per name, on the event loop.
_MAX_ANNOTATIONS = 128
_MAX_NAME_CHARS = 32


class Annotations:
    """Checks the unknown keys of one request, object by object, and bounds their number."""

    def __init__(self) -> None:
        self._count = 0

    def check(self, location: str, names: Iterable[str]) -> None:
        """Return if the keys are annotations.

        Args:
            location: The place of the object in the request, as in "parameters."; empty for the request itself.
            names: The keys of the object that this service does not use there.

        Raises:
            InvalidParameter: A key is an option in the wrong place, resembles a name of this service, asks for shared
                memory, or the request has too many unknown keys.
        """
        for name in names:
            self._count += 1
            if self._count > _MAX_ANNOTATIONS:
                raise InvalidParameter(
                    f"{location}{name[:64]}",
                    f"the request has more than {_MAX_ANNOTATIONS} keys that are not known here",
                )
            if (reason := _mistake(name)) is None:
                continue
            if location == PARAMETERS_LOCATION:
                reason = f"no such parameter; there are {', '.join(PARAMETERS)}{reason}"
            else:
                reason = f"no such key; leave it out{reason}"
            raise InvalidParameter(f"{location}{name[:64]}", reason)


def _mistake(name: str) -> str | None:
    """The remedy, in words, of a key that cannot be ignored; None if the key is an annotation."""
    if name.startswith(_SHARED_MEMORY):
        return ": this service has no shared memory; send and receive data in the messages"
    if name in PARAMETERS:
        return f", or put `{name}` into the `parameters` of the request"
    if name == "explain":
        return "; explanations are on the native route only"
    # Longer names must not reach the cache: clients choose them, and a body has room for names of many megabytes.
    if name in _FOREIGN or len(name) > _MAX_NAME_CHARS:
        return None
    meant = _similar(name)
    return None if meant is None else f"; if it means `{meant}`, write that"


@lru_cache(maxsize=1024)
def _similar(name: str) -> str | None:
    """The name of this service that `name` resembles, as a whole or in one of its words."""
    if near := get_close_matches(name.lower(), (*PARAMETERS, *_FIELDS), 1, _SIMILAR_NAME):
        return near[0]
    for word in _WORD.findall(name):
        if near := get_close_matches(word.lower(), _WORDS, 1, _SIMILAR_WORD):
            return _WORDS[near[0]]
    return None
