"""The online half: HTTP in, calibrated anomaly scores out."""

from service.app import create_app
from service.settings import Settings, SettingsError, load_settings

__all__ = ["Settings", "SettingsError", "create_app", "load_settings"]
