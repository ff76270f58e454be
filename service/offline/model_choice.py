"""From `--model` to a bundle."""

from pathlib import Path

from bundle import MANIFEST_NAME, Bundle, load_bundle
from service.offline.errors import ModelUnusable
from service.repository.model import verified_bundle


def choose_bundle(models: str, model: str, version: str | None) -> Bundle:
    """The bundle `model`: a folder, or a name in the repository `models`. Raises `ModelUnusable` or `BundleError`.

    Without a `version` it is the latest one, whichever the repository's `traffic.yaml` lets answer requests.
    """
    if (Path(model) / MANIFEST_NAME).is_file():
        if version is not None:
            raise ModelUnusable(f"{model} is a bundle's folder, which has one version: leave --version out.")
        return load_bundle(Path(model))
    if "://" in models:
        raise ModelUnusable(
            f"{models} is elsewhere: copy the bundle's folder to this machine and name it with --model."
        )
    repository = Path(models)
    versions = _folders(repository / model)
    if not versions:
        served = [each.name for each in repository.iterdir() if _folders(each)] if repository.is_dir() else []
        names = ", ".join(sorted(served))
        raise ModelUnusable(
            f"No model {model!r} in the repository {models!r}, which has {names or 'none'}. Name one of them, "
            "another repository with --models, or a bundle's folder."
        )
    if version is None:
        return verified_bundle(versions[max(versions, key=int)])
    if version not in versions:
        raise ModelUnusable(f"Model {model} has no version {version!r}; it has {', '.join(sorted(versions, key=int))}.")
    return verified_bundle(versions[version])


def _folders(model: Path) -> dict[str, Path]:
    if not model.is_dir():
        return {}
    return {each.name: each for each in model.iterdir() if each.name.isdecimal() and each.is_dir()}
