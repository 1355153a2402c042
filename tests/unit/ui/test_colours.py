"""Every pair of text and ground is readable in light and dark (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSS = (Path(__file__).parents[3] / "web/css/tokens.css").read_text(encoding="utf-8")
COLOURS = {
    name: (light, dark or light)
    for name, light, dark in re.findall(
        r"--([\w-]+): (?:light-dark\()?(#[0-9a-f]{6})(?:, (#[0-9a-f]{6})\))?;", CSS.replace("); --", ");\n--")
    )
}
PAIRS = [
    *((text, "surface", 4.5) for text in ("text", "text-2", "text-3", "accent")),
    *((text, "bg", 4.5) for text in ("text", "text-2", "text-3", "accent")),
    *((text, "surface-2", 4.5) for text in ("text", "text-2", "text-3", "accent")),
    *((kind, f"{kind}-soft", 4.5) for kind in ("crit", "major", "minor", "ok", "info")),
    ("text-2", "surface-3", 4.5),
    ("on-accent", "accent-fill", 4.5),
    ("on-accent", "accent-fill-hover", 4.5),
    ("crit", "surface", 4.5),
    ("text", "crit-soft", 4.5),
    ("text", "minor-soft", 4.5),
    ("accent", "crit-soft", 4.5),
    ("text-3", "accent-soft", 4.5),
    ("log-text", "log-bg", 4.5),
    ("log-dim", "log-bg", 4.5),
    ("line-strong", "surface", 3),
    ("line-strong", "bg", 3),
    ("focus", "bg", 3),
    ("focus", "surface", 3),
]  # fmt: skip


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground", "least"), PAIRS)
def test_contrast(text: str, ground: str, least: float, theme: int):
    darker, brighter = sorted(luminance(COLOURS[one][theme]) for one in (text, ground))
    assert (brighter + 0.05) / (darker + 0.05) >= least
