"""The pages hang together: links, names of settings and modules, kinds of blocks."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import DOCS, ROOT, blocks_of

from dtr import __version__, config

PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
READ_ALONE = [ROOT / "README.md", ROOT / "CHANGELOG.md"]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", tmp_path / "cache",
         DOCS, tmp_path / "html"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "html" / "tutorial" / "first-push.html").exists()


@pytest.mark.parametrize("page", [*READ_ALONE, *PAGES], ids=_name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_settings_that_are_named_exist(page: Path) -> None:
    known = set(config.names())
    sections = {name.rpartition(".")[0] for name in known}
    named = re.findall(r"`((?:tls|database|storage|registry|auth|log)\.[a-z0-9_.]+)`", page.read_text())
    variables = re.findall(r"\bDTR_[A-Z0-9_]*[A-Z0-9]", page.read_text())
    meant = [one.removeprefix("DTR_").lower().replace("__", ".") for one in variables if one not in config.SPECIAL]
    assert {*named, *meant} - known - sections == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_modules_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    for module in re.findall(r"`(dtr(?:\.[a-z_0-9]+)+)`", text):
        assert module in {"dtr.lock", "dtr.log", "dtr.toml", "dtr.yaml"} or _is_module(module), module
    for name, module in re.findall(r"`(\w+)` in\s+`(dtr[.\w]*)`", text):
        assert hasattr(importlib.import_module(module), name) or _has_method(module, name), f"{module}.{name}"
    for file in re.findall(r"`(src/[^`]*|(?:http|registry|db|accounts|storage)/[a-z_0-9/]+\.py)`", text):
        assert (ROOT / file).exists() or (ROOT / "src" / "dtr" / file).exists(), file


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _has_method(module: str, name: str) -> bool:
    return any(
        hasattr(one, name) for one in vars(importlib.import_module(module)).values() if isinstance(one, type)
    )


@pytest.mark.parametrize(
    "page", [one for one in PAGES if one.parent.name in {"tutorial", "how-to"}], ids=_name
)  # fmt: skip
def test_every_block_of_a_page_is_run_or_shown(page: Path) -> None:
    blocks = blocks_of(page)
    assert len(blocks) * 2 == len(re.findall(r"^\s*```", page.read_text(), re.MULTILINE))
    assert any(block.language == "shell" for block in blocks)
    for block in blocks:
        is_file = block.text.startswith("# ") and "/" in block.text.partition("\n")[0] + "/"
        assert block.language in {"shell", "text"} or is_file, f"line {block.line}"


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(page.name[:4]) for page in (DOCS / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("[0-9]*.md")), ids=_name)
def test_a_decision_has_the_parts_of_the_template(page: Path) -> None:
    template = (DOCS / "decisions" / "template.md").read_text()
    assert re.findall(r"^## .*", page.read_text(), re.MULTILINE) == re.findall(r"^## .*", template, re.MULTILINE)
    assert page.read_text().startswith(f"# {page.name[:4]}: ")


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__
