"""
Markdown pages as their readers use them.

The blocks of a page in ``docs/tutorial`` and ``docs/how-to`` are run in their order, in one shell on a terminal:

* ``shell`` is run as it is printed;
* any other language but ``text`` is a file, whose path is in the first line, behind ``#``;
* ``text`` is what something prints, or a drawing.

A comment before a block says more: ``<!-- background -->`` (a server, in another terminal; ``background: b`` is a
second one, and a new one ends the one before it), ``<!-- stop -->`` (end the server first), ``<!-- fails -->``,
and before ``text`` ``<!-- output -->``: these lines are printed, … standing for anything.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.forks import command_directory

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PROMPT = re.compile(r"(?:password|confirmation|it again)[^\n]*: $", re.IGNORECASE)

_PRELUDE = """
set -euo pipefail
set -m # each server has a process group of its own
declare -A servers
stop() {
  [ -n "${servers[$1]:-}" ] || return 0
  if kill -- -"${servers[$1]}" 2>/dev/null; then
    while kill -0 -- -"${servers[$1]}" 2>/dev/null; do sleep 0.02; done # all of them
  fi
  servers[$1]=
}
trap 'for one in "${!servers[@]}"; do stop "$one"; done' EXIT
ready() {
  until grep -q "dtr is ready" "$1.log"; do
    kill -0 "${servers[$1]}" 2>/dev/null || { cat "$1.log"; exit 1; }
    sleep 0.05
  done
  sleep 0.05
  cat "$1.log"
}
"""


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is the comment before it."""

    language: str
    text: str
    mark: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    source = page.read_text()
    return [
        Block(found["language"], found["text"], found["mark"] or "", source.count("\n", 0, found.start()) + 1)
        for found in _BLOCK.finditer(source)
    ]


def tables_of(page: Path) -> list[list[list[str]]]:
    """The tables of a page: rows of cells, without their heads."""
    tables: list[list[list[str]]] = []
    before = ""
    for line in page.read_text().splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    return [table[2:] for table in tables]


def codes_in(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def follow(
    page: Path,
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    replaced: Mapping[str, str] | None = None,
    answers: Iterable[str | Callable[[], str]] = (),
    prefix: Iterable[str] = (),
    seconds: float = 600,
) -> str:
    """
    Do what a page says in `directory`; what was printed.

    `replaced` says what stands for the addresses and directories of the page; `answers` are typed when a password
    is asked for; `prefix` is the program through which the page's shell is run. Fails when a command fails, or
    when something that the page shows is not printed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    given = replaced or {}

    def here(text: str) -> str:
        for old, new in given.items():
            text = text.replace(old, new)
        return text

    blocks = blocks_of(page)
    script = directory / "page.sh"
    script.write_text(_PRELUDE + "".join(_step(block, here(block.text)) for block in blocks))
    output = _COLOUR.sub(
        "", _run_on_terminal([*prefix, "bash", str(script)], directory, environment or {}, list(answers), seconds)
    )
    for block in blocks:
        if block.mark == "output":
            for line in filter(None, here(block.text).splitlines()):
                pattern = ".*".join(map(re.escape, line.split("…")))
                assert re.search(pattern, output), f"{page.name}:{block.line}: {line!r} is not printed:\n{output}"
    return output


def _step(block: Block, text: str) -> str:
    says = f"echo '--- line {block.line}'\n"
    if block.language == "text":
        return ""
    if block.language != "shell":
        first, _, content = text.partition("\n")
        path = first.removeprefix("#").strip()
        return f"{says}mkdir -p \"$(dirname '{path}')\"\ncat > '{path}' <<'END OF FILE'\n{content}END OF FILE\n"
    if block.mark == "fails":
        return f"{says}if (\n{text}); then echo 'this had to fail'; exit 1; fi\n"
    kind, _, name = block.mark.partition(":")
    name = f"server-{name.strip() or 'a'}"
    if kind == "stop":
        return f"{says}stop {name}\n{text}"
    if kind == "background":
        started = f"(\n{text}) > {name}.log 2>&1 < /dev/null &\nservers[{name}]=$!\n"
        return f"{says}stop {name}\n: > {name}.log\n{started}ready {name}\n"
    assert not block.mark, f"unknown mark {block.mark}"
    return says + text


def _run_on_terminal(
    command: list[str],
    directory: Path,
    environment: Mapping[str, str],
    answers: list[str | Callable[[], str]],
    seconds: float,
) -> str:
    commands = [str(Path(sys.executable).parent)]
    if command[0] == "bash":  # what runs it elsewhere runs the command itself
        commands.insert(0, str(command_directory()))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DTR_")}
    process = subprocess.Popen(
        ["script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null"],
        cwd=directory,
        env={
            **inherited,
            "PATH": ":".join([*commands, os.environ["PATH"]]),
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
            "REGISTRY_AUTH_FILE": str(directory / "auth.json"),
            **environment,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGTERM))
    late.start()
    output = ""
    try:
        while data := os.read(process.stdout.fileno(), 65536):
            output += data.decode(errors="replace").replace("\r\n", "\n")
            if answers and _PROMPT.search(output):
                answer = answers.pop(0)
                process.stdin.write((answer if isinstance(answer, str) else answer()).encode() + b"\n")
                process.stdin.flush()
                output += "\n"
        status = process.wait(60)
    finally:
        late.cancel()
        process.stdin.close()
        process.stdout.close()
    assert status == 0, f"{command[-1]} ended with {status}:\n{output}"
    assert not answers, f"{len(answers)} answers were not asked for:\n{output}"
    return output
