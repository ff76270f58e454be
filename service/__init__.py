"""The inference service: it scores inputs over HTTP, with anomaly scores calibrated to a false-flag rate."""

from typing import TYPE_CHECKING, Any

from service.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from service.app import create_app

__all__ = ["Settings", "SettingsError", "create_app", "load_settings"]


def __getattr__(name: str) -> Any:
    # Imported on demand: the application imports everything else, and a supervisor of workers needs none of it.
    if name == "create_app":
        from service.app import create_app  # noqa: PLC0415

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
