"""Takes the place of the package platformdirs on a machine that has only torch; the GPU script puts
it on the path where the package is missing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path


def _folder(name: str) -> str:
    return str(Path(tempfile.gettempdir()) / f"{name}-stand-in")


def user_cache_dir(name: str, author: bool = False) -> str:  # noqa: ARG001 - the package's
    return _folder(name)


user_data_dir = user_config_dir = user_cache_dir
