"""
READMEs as HTML that does nothing but say something.

Markdown is rendered by markdown-it (CommonMark, tables, strikethrough), with whatever HTML stands in it. The
result is cleaned by nh3, whose list of elements and attributes is the only thing that decides what stays: no
scripts, styles, forms, frames or handlers, and no addresses but ``http``, ``https`` and ``mailto``. Nothing is
loaded from elsewhere: images become links to them. Headings go below those of the page.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token

_BELOW = 2
"""Levels by which headings are lowered: the page has h1, the card around the text h2."""
_LOWEST = 6
_SHORT, _SHORT_HTML = 16_000, 32_000
"""Characters that are shown at first, and those that they may become: the page is small with them, too."""
LONGEST = 100_000
"""Characters that are rendered at most. It takes half a second, and longer if they were written for that."""
_PREFIX = "readme-"
_TAGS = frozenset({
    "a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h3",
    "h4", "h5", "h6", "hr", "i", "ins", "kbd", "li", "ol", "p", "pre", "q", "s", "samp", "small", "span",
    "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul", "var",
})  # fmt: skip
_ATTRIBUTES = {
    "a": {"href", "title"},
    "ol": {"start"},
    "th": {"colspan", "rowspan"},
    "td": {"colspan", "rowspan"},
    "details": {"open"},
    **{f"h{level}": {"id"} for level in range(1 + _BELOW, _LOWEST + 1)},
}
_GONE = frozenset(
    {"script", "style", "template", "iframe", "object", "svg", "math", "noscript", "textarea", "title"}
)
_SCHEMES = frozenset({"http", "https", "mailto"})
_SLUG = re.compile(r"[^\w\- ]+")
_IMAGE = re.compile(r"<img\b([^<>]*)>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""\b(src|alt)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)


@lru_cache(maxsize=128)
def render_beginning(text: str) -> tuple[Markup, bool]:
    """What of a README is shown at first, as HTML, and whether that is all. Takes up to a tenth of a second."""
    size = _SHORT
    while True:
        cut = len(text) if len(text) <= size else text.rfind("\n\n", size // 2, size)
        begins = text[: cut if cut > 0 else size]
        html = render(begins)
        if len(html) <= _SHORT_HTML:
            return html, len(begins) == len(text)
        size = min(size, len(begins)) // 2


@lru_cache(maxsize=16)
def render(text: str) -> Markup:
    """A README, of which at most `LONGEST` characters are read, as HTML."""
    cleaned = nh3.clean(
        _PARSER.render(text[:LONGEST], {"slugs": {}, "links": 0}),
        tags=_TAGS,
        clean_content_tags=_GONE,
        attributes=_ATTRIBUTES,
        attribute_filter=_filter,
        url_schemes=_SCHEMES,
        url_relative="pass_through",
        # They may be wider than the page: who has no mouse scrolls them, too.
        set_tag_attribute_values={"table": {"tabindex": "0"}, "pre": {"tabindex": "0"}},
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(cleaned)  # noqa: S704 - cleaned


def _filter(_tag: str, name: str, value: str) -> str | None:
    """The value of an attribute; None: without it. Links lead to other sites or within the text."""
    if name == "id":
        return value if value.startswith(_PREFIX) else None
    if name == "href" and not re.match(r"[a-z]+:", value, re.IGNORECASE):
        return f"#{_PREFIX}{value[1:]}" if value.startswith("#") and len(value) > 1 else None
    return value


# --- rendering ------------------------------------------------------------------------------------------------


def _heading(
    renderer: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """The beginning or the end of a heading, lowered; it can be linked to by its words."""
    token = tokens[at]
    token.tag = f"h{min(int(token.tag[1:]) + _BELOW, _LOWEST)}"
    if token.nesting == 1:
        words = "".join(
            one.content for one in tokens[at + 1].children or () if one.type in {"text", "code_inline"}
        )
        slug = _SLUG.sub("", words.lower()).strip().replace(" ", "-")
        times = env["slugs"].get(slug, 0)
        env["slugs"][slug] = times + 1
        token.attrSet("id", f"{_PREFIX}{slug}" + (f"-{times}" if times else ""))
    return renderer.renderToken(tokens, at, options, env)


def _image(
    renderer: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """A link to an image, called by what it shows; within a link only what it shows."""
    token = tokens[at]
    source = str(token.attrs.get("src", ""))
    shown = renderer.renderInlineAsText(token.children or [], options, env)
    return _link_to_image(source, shown, is_linked=env["links"] > 0)


def _link(
    renderer: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    """The beginning or the end of a link, within which there are no others."""
    env["links"] += tokens[at].nesting
    return renderer.renderToken(tokens, at, options, env)


def _link_to_image(source: str, shown: str, *, is_linked: bool) -> str:
    words = escapeHtml(shown.strip() or source.rpartition("/")[2])
    return words if is_linked or not source else f'<a href="{escapeHtml(source)}">{words}</a>'


def _html(
    _renderer: RendererHTML, tokens: Sequence[Token], at: int, _options: Any, env: MutableMapping[str, Any]
) -> str:
    """HTML as it stands, but for its images."""

    def replaced(match: re.Match[str]) -> str:
        found = {name.lower(): a or b or c for name, a, b, c in _ATTRIBUTE.findall(match[1])}
        return _link_to_image(found.get("src", ""), found.get("alt", ""), is_linked=env["links"] > 0)

    return _IMAGE.sub(replaced, tokens[at].content)


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for name, rule in (
        ("heading_open", _heading),
        ("heading_close", _heading),
        ("link_open", _link),
        ("link_close", _link),
        ("image", _image),
        ("html_block", _html),
        ("html_inline", _html),
    ):
        parser.add_render_rule(name, rule)
    return parser


_PARSER = _make_parser()
