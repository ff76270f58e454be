"""Named components: how a recipe's `{name: ..., option: ...}` becomes an object, with errors that name the key."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from training.errors import RecipeError

T = TypeVar("T")


class Component(BaseModel):
    """A component's name in its registry (or a dotted path to a callable) and the options passed to it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Every key beside `name`."""
        return dict(self.model_extra or {})


def build(key: str, component: Component, registry: Mapping[str, Callable[..., T]], **context: Any) -> T:
    """Call what `component` names with its options and, where it takes them, the values in `context`.

    Raises RecipeError naming `key` when the name is unknown or an option does not fit the callable's signature.
    """
    factory = _resolve(key, component.name, registry)
    parameters = inspect.signature(factory).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    offered = {name: value for name, value in context.items() if takes_any or name in parameters}
    known = sorted(set(parameters) - set(context))
    for option in component.options:
        if not takes_any and option not in known:
            remedy = f"Known options: {', '.join(known) or 'none'}"
            raise RecipeError(f"{key}.{option}", f"'{component.name}' has no such option", remedy)
    try:
        return factory(**offered, **component.options)
    except (TypeError, ValueError) as error:
        raise RecipeError(key, f"'{component.name}' refuses its options: {error}", "Correct the recipe") from error


def _resolve(key: str, name: str, registry: Mapping[str, Callable[..., T]]) -> Callable[..., T]:
    if name in registry:
        return registry[name]
    module, _, attribute = name.replace(":", ".").rpartition(".")
    if not module:
        remedy = f"Known: {', '.join(sorted(registry))}; or give a dotted path such as package.module.Name"
        raise RecipeError(f"{key}.name", f"'{name}' is unknown", remedy)
    try:
        found: Callable[..., T] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"{key}.name", f"'{name}' cannot be imported: {error}", "Check the path") from error
    return found
