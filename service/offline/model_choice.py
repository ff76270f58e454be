"""Finds the bundle that `--model` and `--version` name."""

from pathlib import Path

from bundle import MANIFEST_NAME, Bundle, load_bundle
from service.offline.errors import ModelUnusable
from service.repository.model import verified_bundle


def choose_bundle(models: str, model: str, version: str | None) -> Bundle:
    """Load the bundle to score with.

    Args:
        models: The model repository.
        model: A bundle's folder, or a model's name in the repository.
        version: The version; None for the latest one, whatever the repository's traffic rules say.

    Raises:
        ModelUnusable: The model or the version does not exist.
        BundleError: The bundle is damaged.
    """
    if (Path(model) / MANIFEST_NAME).is_file():
        if version is not None:
            raise ModelUnusable(f"{model} is a bundle's folder, which has one version: leave --version out.")
        return load_bundle(Path(model))
    if (versions := _versions(Path(model))) and "/" in model:
        bundle = versions[max(versions, key=int)]
        raise ModelUnusable(f"{model} holds the versions of a model. Name one of them: --model {bundle}.")
    if "://" in models:
        raise ModelUnusable(
            f"{models} is elsewhere: copy the bundle's folder to this machine and name it with --model."
        )
    repository = Path(models)
    versions = _versions(repository / model)
    if not versions:
        names = [folder.name for folder in repository.iterdir() if _versions(folder)] if repository.is_dir() else []
        raise ModelUnusable(
            f"No model {model!r} in the repository {models!r}, which has {', '.join(sorted(names)) or 'none'}. "
            "Name one of them, another repository with --models, or a bundle's folder."
        )
    if version is None:
        return verified_bundle(versions[max(versions, key=int)])
    if version not in versions:
        raise ModelUnusable(f"Model {model} has no version {version!r}; it has {', '.join(sorted(versions, key=int))}.")
    return verified_bundle(versions[version])


def _versions(model: Path) -> dict[str, Path]:
    """The version folders of a model's folder, by version."""
    if not model.is_dir():
        return {}
    return {folder.name: folder for folder in model.iterdir() if folder.name.isdecimal() and folder.is_dir()}
