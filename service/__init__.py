"""The online half: HTTP in, calibrated anomaly scores out."""

from typing import TYPE_CHECKING, Any

from service.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from service.app import create_app

__all__ = ["Settings", "SettingsError", "create_app", "load_settings"]


def __getattr__(name: str) -> Any:
    # The application brings everything else with it; a supervisor of workers, which serves nothing itself, needs none.
    if name == "create_app":
        from service.app import create_app  # noqa: PLC0415

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
