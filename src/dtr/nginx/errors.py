"""What goes wrong with nginx."""


class NginxFailed(Exception):
    """nginx cannot run; the message says why."""
