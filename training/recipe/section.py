"""The base class of the sections of a recipe."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping in the recipe file; unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
