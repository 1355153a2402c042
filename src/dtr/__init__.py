"""dtr: a trusted registry for container images."""

__version__ = "0.1.0"
