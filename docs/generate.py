# ruff: noqa: INP001 - a script, in no package
"""
Writes the pages of the reference that follow from the program: the settings and the commands.

``.venv/bin/python docs/generate.py`` writes them; with ``--check`` it only says which are out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtr.cli.commands import cli
from dtr.config import COMPONENTS, Settings, names

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = Path(__file__).parent / "reference"
RENEW = ".venv/bin/python docs/generate.py"

_NOTE = f"<!-- Written by `{RENEW}`: change the program, not this page. -->\n"
_SETTINGS = f"""{_NOTE}
# Settings

dtr reads its settings once, when it starts, from four places. Later ones win:

1. the defaults below;
2. a file in TOML or YAML, given with `--config`;
3. the environment: `DTR_` and the name in capitals, with two underscores for a dot: `database.url` is
   `DTR_DATABASE__URL`. Lists are separated by commas; an empty value is none;
4. the options of a command, such as `--data-dir`.

A setting that is unknown or wrong stops the program with a message that names it and where it was given.
`dtr config show` prints every setting with its value and its source, secrets masked.

`DTR_ADMIN_PASSWORD` is no setting: it is the password of the user `admin` when the first start makes it. Nor are
`DTR_SERVER`, `DTR_USER`, `DTR_TOKEN` and `DTR_CA`: they tell the commands that [ask a
server](../how-to/command-line.md) which one, and who you are.

A file in TOML, and the same in YAML:

```toml
https_address = "0.0.0.0:443"

[database]
url = "postgresql://registry@db.example.org/registry"
```

```yaml
https_address: 0.0.0.0:443
database:
  url: postgresql://registry@db.example.org/registry
```
"""
_COMMANDS = f"""{_NOTE}
# Commands

There are two kinds. `dtr serve`, `migrate`, `doctor`, `fsck`, `config`, `account` and `repository` work on the
data of one registry, on its machine: the settings say where they are, as [Settings](settings.md) explains. They
may run while the server does. Whoever can read the settings and reach the data may run them; they do not ask who
you are.

The others ask a server over its API, from anywhere, as the user who logged in with `dtr login`, and may do what
that user may: [Administer from the command line](../how-to/command-line.md) shows how.

A command ends with status 0 when all went well, with 1 when it failed or found something wrong, and with 2 when
it was not understood. A failure is one line on the standard error output that begins with `dtr:`.
"""


def settings_page() -> str:
    """The page of the settings."""
    schema = Settings.model_json_schema(mode="validation")
    page = [_SETTINGS]
    section = None
    for name, (default, description) in sorted(names().items(), key=lambda one: _place(one[0])):
        path = name.rpartition(".")[0]
        if path != section:
            section = path
            title = f"`{path}`" if path else "General"
            page.append(f"\n## {title}\n\n| setting | value | default | meaning |\n| --- | --- | --- | --- |\n")
        kind = _kind(_field(schema, name))
        page.append(f"| `{name}` | {kind} | {_default(name, default)} | {description} |\n")
    return "".join(page)


def commands_page() -> str:
    """The page of the commands."""
    page = [_COMMANDS]
    for path, command, context in _commands(
        cli, click.Context(cli, info_name="dtr", terminal_width=100, **cli.context_settings)
    ):
        if isinstance(command, click.Group) and path != "dtr":
            continue  # its commands say it all
        page.append(f"\n## `{path}`\n\n```text\n{command.get_help(context)}\n```\n")
    return "".join(page)


def _commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            inner = click.Context(child, info_name=name, parent=context, terminal_width=100)
            yield from _commands(child, inner)


def _place(name: str) -> list[tuple[bool, int]]:
    """Where a setting stands: in the program's order, what is in a section behind what is in none."""
    place: list[tuple[bool, int]] = []
    model: Any = Settings
    for key in name.split("."):
        annotation = model.model_fields[key].annotation
        place.append((hasattr(annotation, "model_fields"), list(model.model_fields).index(key)))
        model = annotation
    return place


def _field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    node = schema
    for key in name.split("."):
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        node = node["properties"][key]
    return node


def _kind(field: dict[str, Any]) -> str:
    """What a value looks like."""
    choices = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    (one,) = choices
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    if one["type"] == "array":
        of = one["items"].get("enum")
        return "list of " + (", ".join(f"`{value}`" for value in of) if of else "texts")
    if one["type"] == "boolean":
        return "`true`, `false`"
    if one["type"] == "integer":
        low, high = one.get("minimum"), one.get("maximum")
        return f"number, {low} to {high}" if high is not None else f"number, at least {low}"
    return {"path": "path", "password": "text, secret"}.get(one.get("format", ""), "text")


def _default(name: str, default: Any) -> str:
    if name == "workers":
        return "one a processor, at most 4"
    if default is None or default in {"", ()}:
        return ""
    if default == COMPONENTS:
        return "all"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


PAGES = {"settings.md": settings_page, "commands.md": commands_page}


def main() -> None:
    """Write the pages, or check them."""
    stale = [name for name, make in PAGES.items() if _read(REFERENCE / name) != make()]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit(f"out of date: {', '.join(stale)}; {RENEW} writes them")
        return
    for name in stale:
        (REFERENCE / name).write_text(PAGES[name](), encoding="utf-8")


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8") if page.exists() else ""


if __name__ == "__main__":
    main()
