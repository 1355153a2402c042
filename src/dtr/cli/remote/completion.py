"""``dtr completion``: what a shell needs to complete commands, options and names."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """
    Print what makes a shell complete commands and names.

    Put `eval "$(dtr completion bash)"` into ~/.bashrc, the same with zsh into ~/.zshrc; for fish, write it to
    ~/.config/fish/completions/dtr.fish.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(context.find_root().command, {}, "dtr", "_DTR_COMPLETE").source())
