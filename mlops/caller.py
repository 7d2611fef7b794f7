"""Who runs a command."""

import getpass
import os


def name() -> str:
    """The name of the account; its number where it has none, such as one that only a container knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
