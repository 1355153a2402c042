"""What the webhooks refuse."""

from __future__ import annotations


class WebhookError(Exception):
    """Base of this package's errors."""


class WebhookUnknown(WebhookError):
    """There is no such webhook."""


class WebhookInvalid(WebhookError):
    """A webhook cannot be like that."""


class DeliveryUnknown(WebhookError):
    """The webhook has no such delivery."""


class DeliveryFailed(WebhookError):
    """The receiver did not take it; the message says why."""
