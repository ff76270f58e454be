"""Recipe files: reads YAML, resolves `extends`, applies overrides and validates the result."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from datafiles import did_you_mean
from training.errors import RecipeError
from training.recipe.components import dotted_components
from training.recipe.data_config import ALTERNATIVES
from training.recipe.recipe import Recipe
from training.recipe.yaml_file import parse_yaml


def load_recipe(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool = False,
    complete: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Recipe:
    """Read and validate a recipe file.

    Args:
        path: The YAML file. Its key `extends` names a file, relative to this one, whose keys it changes.
        overrides: Changes of the form `key.path=value`; the value is YAML.
        allow_code: Whether components may be callables that are imported by their dotted path.
        complete: Adds sections that the file leaves out to its plain data.

    Raises:
        RecipeError: The file cannot be read or is not a valid recipe; names the file and the keys.
    """
    raw = _read(path)
    for override in overrides:
        apply_override(raw, override)
    complete(raw)
    return parse_recipe(raw, str(path), allow_code=allow_code)


def _read(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of the file at `path`, on top of those of the file it extends; `extending` are the files above it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(str(path), f"cannot be read ({error.strerror})", "Give the path of a recipe file") from error
    except UnicodeDecodeError as error:
        raise RecipeError(str(path), f"is not UTF-8 text: {error}", "Give the path of a recipe file") from error
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise RecipeError(str(path), "is not a mapping of keys to values", "See training/recipes for examples")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    chain = (*extending, path.resolve())
    if not isinstance(base, str) or (path.parent / base).resolve() in chain:
        raise RecipeError(f"{path}: extends", f"{base!r} is no other recipe file", "Give a path relative to this file")
    return _merge(_read(path.parent / base, chain), raw)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` applied, merging sections recursively.

    A named component is replaced and not merged; likewise a data set by a synthetic set, or the reverse.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        is_section = isinstance(old, dict) and isinstance(value, dict) and not _replaces(old, value)
        merged[key] = _merge(old or {}, value) if is_section else value
    return merged


def _replaces(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "name" in new or {"path", "synthetic"} <= old.keys() | new.keys()


def parse_recipe(raw: dict[str, Any], origin: str, *, allow_code: bool = False) -> Recipe:
    """Validate the plain data of a recipe.

    Raises:
        RecipeError: Keys are invalid, or a component is a dotted path and `allow_code` is off; names `origin` and them.
    """
    try:
        # Strict JSON mode: lists become tuples, but "10" never becomes 10.
        recipe = Recipe.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        problems = "; ".join(f"{_key(details['loc'])}: {_message(details)}" for details in error.errors())
        raise RecipeError(origin, problems, "Correct the keys named; training/recipes has valid recipes") from error
    except (TypeError, ValueError) as error:
        raise RecipeError(origin, f"holds a value YAML reads as a date or object: {error}", "Quote it") from error
    if not allow_code and (named := dotted_components(recipe)):
        listed = ", ".join(f"{key} {name!r}" for key, name in named)
        reason = f"names code to import: {listed}"
        raise RecipeError(origin, reason, "Read that code, then give --allow-code")
    return recipe


def _message(details: Any) -> str:
    """The message of a pydantic error; of an unknown key, with the key that was probably meant."""
    if details["type"] != "extra_forbidden":
        return str(details["msg"])
    section: Any = Recipe
    *parents, name = [part for part in details["loc"] if part not in ALTERNATIVES]
    return f"there is no such key{did_you_mean(str(name), _keys_of(section, parents))}"


def _keys_of(section: Any, parents: Sequence[int | str]) -> list[str]:
    """The keys of the section at `parents`, as far as the types of the fields tell."""
    for parent in parents:
        field = getattr(section, "model_fields", {}).get(str(parent))
        if field is None:
            # The name of a stage or a set, or the kind of an input.
            continue
        section = next((kind for kind in _kinds(field.annotation) if hasattr(kind, "model_fields")), section)
    return list(getattr(section, "model_fields", {}))


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _kinds(argument)


def _key(location: tuple[int | str, ...]) -> str:
    """The key as it is written in the recipe: pydantic's location without the names of alternatives."""
    parts = [str(part) for part in location if part not in ALTERNATIVES]
    if parts[:1] == ["input"]:
        del parts[1:2]
    return ".".join(parts) or "recipe"


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one key of a recipe's plain data from `key.path=value`, where the value is YAML.

    Raises:
        RecipeError: The override has another form, or a parent of the key is not a section.
    """
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise RecipeError(override, "is not of the form key.path=value", "For example stages.oe.epochs=3")
    *parents, last = key.split(".")
    section = raw
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise RecipeError(key, f"'{parent}' holds a value, not a section", "Correct the key")
    section[last] = parse_yaml(value, override)
