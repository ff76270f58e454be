"""Named components: builds the object that a recipe's `{name: ..., option: ...}` describes."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from training.errors import RecipeError

T = TypeVar("T")


class Component(BaseModel):
    """The name of a registered component (or the dotted path of a callable) and its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Every key except `name`."""
        return dict(self.model_extra or {})


def dotted_components(section: BaseModel, key: str = "") -> list[tuple[str, str]]:
    """The key and name of each component in `section` that is imported by a dotted path, at any depth."""
    found: list[tuple[str, str]] = []
    for name, value in section:
        path = f"{key}.{name}" if key else name
        values = value.items() if isinstance(value, dict) else [(None, value)]
        for sub, item in values:
            item_key = path if sub is None else f"{path}.{sub}"
            if isinstance(item, Component):
                found += [(item_key, item.name)] if is_dotted(item.name) else []
            elif isinstance(item, BaseModel):
                found += dotted_components(item, item_key)
    return found


def is_dotted(name: str) -> bool:
    """Whether the name is a dotted path to a callable and not a registered name."""
    return "." in name or ":" in name


def build_component(key: str, component: Component, registry: Mapping[str, Callable[..., T]], **context: Any) -> T:
    """Call the factory that `component` names.

    Args:
        key: The recipe key of the component, for error messages.
        component: The factory's name and its options.
        registry: The factories by name.
        **context: Values that are passed only if the factory has a parameter of that name.

    Raises:
        RecipeError: The name is unknown, or an option does not match the factory's signature.
    """
    factory = _resolve(key, component.name, registry)
    parameters = inspect.signature(factory).parameters
    accepts_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    accepted_context = {name: value for name, value in context.items() if accepts_any or name in parameters}
    option_names = sorted(set(parameters) - set(context))
    for option in component.options:
        if not accepts_any and option not in option_names:
            remedy = f"Known options: {', '.join(option_names) or 'none'}"
            raise RecipeError(f"{key}.{option}", f"'{component.name}' has no such option", remedy)
    try:
        return factory(**accepted_context, **component.options)
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
        factory: Callable[..., T] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"{key}.name", f"'{name}' cannot be imported: {error}", "Check the path") from error
    return factory
