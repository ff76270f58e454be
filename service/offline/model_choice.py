"""From `--model` to a bundle's folder."""

from pathlib import Path

from bundle import MANIFEST_NAME
from service.offline.errors import ModelUnusable


def find_bundle(models: Path, model: str, version: str | None) -> Path:
    """The folder of `model`: itself a bundle's, or a name in the repository `models`. Raises `ModelUnusable`.

    Without a `version` it is the latest one.
    """
    if (Path(model) / MANIFEST_NAME).is_file():
        if version is not None:
            raise ModelUnusable(f"{model} is a bundle's folder, which has one version: leave --version out.")
        return Path(model).resolve()
    versions = _folders(models / model)
    if not versions:
        names = ", ".join(sorted(each.name for each in models.iterdir() if _folders(each))) if models.is_dir() else ""
        raise ModelUnusable(
            f"No model {model!r} in the repository {str(models)!r}, which has {names or 'none'}. Name one of them, "
            "another repository with --models, or a bundle's folder."
        )
    if version is None:
        return versions[max(versions, key=int)]
    if version not in versions:
        raise ModelUnusable(f"Model {model} has no version {version!r}; it has {', '.join(sorted(versions, key=int))}.")
    return versions[version]


def _folders(model: Path) -> dict[str, Path]:
    if not model.is_dir():
        return {}
    return {each.name: each.resolve() for each in model.iterdir() if each.name.isdecimal() and each.is_dir()}
