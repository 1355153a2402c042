"""
The pages of the whole system: for administrators, who change it, and auditors, who look.

Whoever may not change something sees how it is, and no control.
"""

from __future__ import annotations

from dtr.http.ui.system import gc, general, overview, security, storage

SUBJECTS = (overview.pages, general.pages, storage.pages, security.pages, gc.pages)

__all__ = ["SUBJECTS"]
