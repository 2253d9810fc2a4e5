"""Asking before something is done that is not easily undone."""

from experiments_cli.errors import Usage
from experiments_cli.terminal import Terminal


def confirmed(question: str, terminal: Terminal, *, yes: bool) -> bool:
    """Ask for a yes. Raises Usage where nobody is there to ask."""
    if yes:
        return True
    if terminal.ask is None:
        raise Usage("there is no terminal to ask on: give --yes to go on without being asked")
    return terminal.ask(f"{question} [y/N] ")
