"""
Webhooks: others are told what happens in repositories.

`Webhooks` are the subscriptions; `Dispatcher` follows the events and queues what is to be told; `Deliveries` are
what was queued, which jobs send by a `Sender`.
"""

from __future__ import annotations

from dtr.webhooks.deliveries import RETRIES, SIGNATURE, Deliveries, Delivery
from dtr.webhooks.dispatcher import Dispatcher
from dtr.webhooks.errors import DeliveryFailed, DeliveryUnknown, WebhookInvalid, WebhookUnknown
from dtr.webhooks.payloads import TYPES
from dtr.webhooks.sender import Receiver, Sender
from dtr.webhooks.subscriptions import Webhook, Webhooks

__all__ = [
    "RETRIES",
    "SIGNATURE",
    "TYPES",
    "Deliveries",
    "Delivery",
    "DeliveryFailed",
    "DeliveryUnknown",
    "Dispatcher",
    "Receiver",
    "Sender",
    "Webhook",
    "WebhookInvalid",
    "WebhookUnknown",
    "Webhooks",
]
