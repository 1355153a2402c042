"""READMEs do nothing but say something, whatever is written in them."""

from __future__ import annotations

import time

import pytest
from bs4 import BeautifulSoup

from dtr.http.ui.markdown import LONGEST, render, render_beginning

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    '<a href="JaVaScRiPt&#58;alert(1)">x</a>',
    "[x](javascript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "<svg onload=alert(1)><use href='#a'/></svg>",
    "<iframe src=//evil.example></iframe>",
    "<form action=//evil.example><input name=password><button>x</button></form>",
    "<style>body{display:none}</style>",
    '<p style="position:fixed" class="card" id="main" onclick="x()">x</p>',
    "<base href=//evil.example><meta http-equiv=refresh content=0>",
    "<link rel=stylesheet href=//evil.example>",
    "<math><mi//xlink:href='data:x,alert(1)'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!-- --!><img src=x onerror=alert(1)> -->",
    "<dialog open>x</dialog><video src=x></video><audio src=x></audio><object data=x></object><embed src=x>",
    "![x](https://evil.example/pixel.png)",
    "# <a id=csrf_token name=csrf_token>x</a>",
    '<div hx-get="/x" hx-trigger="load" data-dialog="dialog" data-copy="x">x</div>',
]
INERT = {
    "a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h3",
    "h4", "h5", "h6", "hr", "i", "ins", "kbd", "li", "ol", "p", "pre", "q", "s", "samp", "small", "span",
    "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul", "var",
}  # fmt: skip
ATTRIBUTES = {"href", "title", "rel", "start", "colspan", "rowspan", "open", "id", "tabindex"}


@pytest.mark.parametrize("text", HOSTILE)
def test_what_could_do_something_is_gone(text: str):
    for within in (
        text,
        f"- {text}",
        f"> {text}",
        f"| a |\n|---|\n| {text} |",
        f"<div>\n\n{text}\n\n</div>",
        f"**{text}",
    ):
        soup = BeautifulSoup(render(within), "html.parser")
        for element in soup.find_all(True):
            assert element.name in INERT
            assert set(element.attrs) <= ATTRIBUTES
            assert str(element.get("id", "readme-")).startswith("readme-")
            assert str(element.get("href", "#readme-")).startswith(("http:", "https:", "mailto:", "#readme-"))


def test_images_become_links_that_say_what_they_show():
    html = render('![The logo](https://x.example/l.png) <img alt="Raw" src="https://x.example/r.png">')
    links = BeautifulSoup(html, "html.parser").find_all("a")
    assert [(one.get_text(), one["href"]) for one in links] == [
        ("The logo", "https://x.example/l.png"),
        ("Raw", "https://x.example/r.png"),
    ]
    assert set(links[0]["rel"]) == {"noopener", "noreferrer", "nofollow"}
    # Within a link there is no other one.
    html = render("[![build](https://x.example/b.svg)](https://ci.example/)")
    (link,) = BeautifulSoup(html, "html.parser").find_all("a")
    assert (link.get_text(), link["href"]) == ("build", "https://ci.example/")
    assert "only-a-name.png" in render("![](https://x.example/only-a-name.png)")


def test_headings_are_below_those_of_the_page_and_links_lead_to_them():
    html = BeautifulSoup(
        render("# One\n\n#### Four\n\n###### Six\n\n# One\n\n[up](#one) [away](../other)"), "html.parser"
    )
    assert [(one.name, one["id"]) for one in html.find_all(["h1", "h2", "h3", "h4", "h5", "h6"])] == [
        ("h3", "readme-one"),
        ("h6", "readme-four"),
        ("h6", "readme-six"),
        ("h3", "readme-one-1"),
    ]
    assert [one.get("href") for one in html.find_all("a")] == ["#readme-one", None]


def test_markdown_is_what_people_write():
    html = render(
        "**b** `c` ~~d~~\n\n| a |\n|---|\n| 1 |\n\n```sh\nrun <x>\n```\n\n"
        "<details><summary>s</summary>\n\nt\n\n</details>"
    )
    for part in (
        "<strong>b</strong>",
        "<code>c</code>",
        "<s>d</s>",
        "<th>a</th>",
        '<pre tabindex="0">',
        "run &lt;x&gt;",
        "<summary>s</summary>",
    ):
        assert part in html


def test_a_long_text_begins_with_whole_paragraphs_and_small():
    html, whole = render_beginning("short")
    assert (html, whole) == ("<p>short</p>\n", True)
    html, whole = render_beginning("\n\n".join(f"paragraph {number} ends." for number in range(20_000)))
    assert not whole
    assert html.rstrip().endswith("ends.</p>")
    html, whole = render_beginning("[a](https://x.example) " * 3000)  # what becomes many times as long
    assert not whole
    assert len(html) <= 32_000


@pytest.mark.parametrize(
    "part",
    ["![a](b) ", "[a](b) ", "<div>", "<div><img ", "<img src='", "[", "*a ", "![", "`", "> ", "- ", "&", "<", "_"],
)
def test_nothing_takes_long(part: str):
    started = time.process_time()
    render(part * (LONGEST // len(part) * 2))
    assert time.process_time() - started < 8
