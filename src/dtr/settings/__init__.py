"""
Live settings: those that change while the program runs, for all processes and hosts at once.

`LiveSettings.current` is what holds now, `LiveSettings.change` changes it. What is not stored has the value that
the configuration gives.
"""

from __future__ import annotations

from dtr.settings.live import LiveSettings, SettingsChanged, SettingsInvalid
from dtr.settings.values import Values

__all__ = ["LiveSettings", "SettingsChanged", "SettingsInvalid", "Values"]
