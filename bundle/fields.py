"""The field types of the manifest: paths, digests, score names and rates, with their constraints."""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from bundle.scores import SCORES


def _relative_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or "\\" in path or ".." in parts or "\0" in path or ":" in path:
        raise PydanticCustomError("path_escapes", "{path} is not a path inside the bundle", {"path": repr(path)})
    if not parts or str(PurePosixPath(path)) != path:
        raise PydanticCustomError("path_form", "{path} is not a plain relative path", {"path": repr(path)})
    return path


def _score_name(name: str) -> str:
    if name not in SCORES:
        raise PydanticCustomError(
            "unknown_score",
            "{name} is no score; the scores are {known}",
            {"name": repr(name), "known": ", ".join(SCORES)},
        )
    return name


BundlePath = Annotated[str, AfterValidator(_relative_path)]
"""A file's path relative to the bundle, with forward slashes and without `..`."""

ScoreName = Annotated[str, AfterValidator(_score_name)]
"""The name of a score in `bundle.SCORES`."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hexadecimal."""

Alpha = Annotated[float, Field(gt=0, lt=1)]
"""A false-flag rate that is not exceeded on average over calibration sets, 0 < alpha < 1."""

Percent = Annotated[float, Field(ge=0, le=100)]
"""A share in percent."""


class Strict(BaseModel):
    """Base class of the manifest's parts: immutable, without unknown fields, type conversions, NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
