"""Reading the config file, whatever is in its place."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from rwkv_cli.errors import UsageError
from rwkv_cli.files import reason


def config_text(path: Path) -> str:
    """Read the config file; one that is not there, or that may not be looked for, is empty.

    Raises:
        UsageError: It cannot be read, or is no text.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8") from error
    except OSError as error:
        if not os.access(path.parent, os.X_OK):
            return ""
        raise UsageError(f"{path}: cannot be read: {reason(error)}") from error


def parsed(text: str, path: Path) -> dict[str, Any]:
    """Read the content of a config file.

    Raises:
        UsageError: It is not TOML.
    """
    if not text:
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from error
