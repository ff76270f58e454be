"""The rules in `traffic.yaml`: for each model the version that answers, its canary and its shadows."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

LATEST: Final = "latest"


def _text(value: Any) -> Any:
    """Turn an integer into text: YAML reads an unquoted version as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Version = Annotated[str, BeforeValidator(_text), Field(pattern=r"^[1-9][0-9]*$")]


class TrafficError(Exception):
    """`traffic.yaml` is invalid; the message names each wrong key and the reason."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CanaryRule(_Strict):
    """A version that gets `percent` of the requests without a version."""

    version: Version
    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class TrafficRule(_Strict):
    """How one model's requests without a version are distributed."""

    serve: Annotated[str, BeforeValidator(_text), Field(pattern=r"^(latest|[1-9][0-9]*)$")] = LATEST
    canary: CanaryRule | None = None
    shadow: tuple[Version, ...] = ()

    @model_validator(mode="after")
    def _each_version_has_one_role(self) -> Self:
        versions = [self.serve, *([self.canary.version] if self.canary else []), *self.shadow]
        for version in versions:
            if versions.count(version) > 1:
                raise ValueError(f"version {version} is named twice; give it one of serve, canary and shadow")
        return self

    def unserved(self, versions: Collection[str]) -> Iterator[str]:
        """Yield a sentence for each version that the rule names and that is not among the served `versions`."""
        if self.serve not in (LATEST, *versions):
            yield f"serve: version {self.serve} is not served; the previous version continues to answer"
        if self.canary and self.canary.version not in versions:
            yield f"canary.version: version {self.canary.version} is not served and gets no traffic"
        for version in self.shadow:
            if version not in versions:
                yield f"shadow: version {version} is not served and scores nothing"


Rules = Mapping[str, TrafficRule]
_RULES: TypeAdapter[dict[str, TrafficRule]] = TypeAdapter(dict[str, TrafficRule])


def read_rules(file: Path) -> Rules:
    """Read the rules in `file`, by model; none if the file is missing.

    Raises:
        TrafficError: The file is invalid.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return _RULES.validate_python({} if content is None else content)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrafficError(f"it cannot be read: {error}") from error
    except ValidationError as error:
        raise TrafficError("; ".join(_explain(details) for details in error.errors())) from error


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        model, *inside, _ = error["loc"]
        rule = CanaryRule if inside else TrafficRule
        there = ".".join(map(str, (model, *inside)))
        return f"{where}: no such key; the keys of {there} are {', '.join(rule.model_fields)}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')} (got {str(error['input'])[:80]!r})"
