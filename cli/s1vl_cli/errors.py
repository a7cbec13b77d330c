"""What ends a command: something to be put right by the person at the terminal."""

from __future__ import annotations


class CommandError(Exception):
    """A wrong argument or file, or a server that refuses us. The message says what and where; the exit status is 2."""
