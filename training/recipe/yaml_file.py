"""YAML: reads recipes written by strangers, with bounds on their size, and writes recipes."""

import re
from typing import Any

import yaml

from training.errors import RecipeError

_MAX_CHARACTERS = 2**20
_MAX_VALUES = 100_000
"""The number of values that a file may have after its aliases are replaced by what they name."""


class _Yaml(yaml.SafeLoader):
    """YAML with the floats of version 1.2: PyYAML reads 1e-3 as text."""


class _YamlDumper(yaml.SafeDumper):
    """Puts quotes around the texts that `_Yaml` would read as numbers."""


for _class in (_Yaml, _YamlDumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def dump_yaml(data: Any) -> str:
    """Plain data as a YAML text, from which `parse_yaml` reads equal data."""
    return yaml.dump(data, Dumper=_YamlDumper, sort_keys=False, allow_unicode=True)


def parse_yaml(text: str, origin: str) -> Any:
    """The plain data in a YAML text.

    Raises:
        RecipeError: It is not YAML, names a key twice in one mapping, or is too large. An alias counts each time it is
            used: a text of 500 bytes can name billions of values.
    """
    if len(text) > _MAX_CHARACTERS:
        raise RecipeError(origin, f"has more than {_MAX_CHARACTERS:,} characters", "Give a recipe file")
    try:
        loader = _Yaml(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, origin)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    # An invalid date or number is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RecipeError(origin, f"is not valid YAML: {reason}", "Correct it") from error


def _check(node: yaml.Node, origin: str) -> None:
    """Raise RecipeError for a mapping with a key twice, for an alias within itself, and for too many values."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size_of(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in above:
            raise RecipeError(origin, f"has an alias that contains itself{_place(node)}", "Write the values out")
        above.add(id(node))
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            _require_unique_keys(node, origin)
            children = [part for pair in node.value for part in pair]
        size = 1 + sum(map(size_of, children))
        if size > _MAX_VALUES:
            raise RecipeError(origin, f"has more than {_MAX_VALUES:,} values with its aliases", "Give a recipe file")
        above.discard(id(node))
        sizes[id(node)] = size
        return size

    size_of(node)


def _require_unique_keys(mapping: yaml.MappingNode, origin: str) -> None:
    seen: set[str] = set()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise RecipeError(origin, f"has the key '{key.value}' twice{_place(key)}", "Remove one of them")
            seen.add(key.value)


def _place(node: yaml.Node) -> str:
    return f" (line {node.start_mark.line + 1})"
