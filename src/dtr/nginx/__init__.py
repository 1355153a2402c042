"""nginx in front of dtr: its configuration, made from the settings, and its life."""

from dtr.nginx.errors import NginxFailed
from dtr.nginx.front import run

__all__ = ["NginxFailed", "run"]
