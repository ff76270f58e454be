"""Checks that the installed uvicorn has the methods that this service overrides, some of which are private."""

from importlib.metadata import version


def require_hooks(subclass: type, base: type) -> None:
    """Raise `ImportError` unless `base` has each method of `subclass` that is marked with `@override`.

    Without the check, a uvicorn that renamed a hook would never call its override, and no error would tell.
    """
    hooks = [name for name, method in vars(subclass).items() if getattr(method, "__override__", False)]
    missing = [f"{base.__name__}.{hook}" for hook in hooks if not hasattr(base, hook)]
    if missing:
        raise ImportError(
            f"uvicorn {version('uvicorn')} has no {', '.join(missing)}, which the service overrides. "
            "Install the version of constraints.txt: pip install -c constraints.txt uvicorn"
        )
