"""Where this program keeps models, chats and settings, and where models come from; the environment
may move each.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from rwkv_cli.errors import NotFoundError, StorageError

_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_OFFLINE = ("HF_HUB_OFFLINE", "RWKV_OFFLINE")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}

_NOWHERE = Path(os.devnull) / "rwkv"  # a path at which nothing can be


def expanded(name: str) -> Path:
    """Read a path as a shell would, `~` being the home folder.

    Raises:
        NotFoundError: It names the home of someone who has none, or cannot be a path.
    """
    if "\0" in name:
        raise NotFoundError("no file's name holds a NUL character")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise NotFoundError(f"no such home folder: {name}") from error


def models_folder() -> Path:
    """Where installed models lie: `RWKV_MODELS_DIR`, or `models` in the platform's data folder."""
    named = os.environ.get("RWKV_MODELS_DIR")
    if named:
        return expanded(named)
    try:
        return data_folder() / "models"
    except StorageError:
        return _NOWHERE  # who has no home has no models there either


def chats_folder() -> Path:
    """Where conversations are kept."""
    return data_folder() / "chats"


def states_folder() -> Path:
    """Where named states are kept."""
    return data_folder() / "states"


def data_folder() -> Path:
    """Where this program keeps its data: `RWKV_DATA_DIR`, or the platform's folder for it.

    Raises:
        StorageError: There is no home folder.
    """
    named = os.environ.get("RWKV_DATA_DIR")
    folder = expanded(named) if named else Path(platformdirs.user_data_dir("rwkv", False))
    if not folder.is_absolute() and not named:
        raise StorageError("there is no home folder to keep data in", hint="set RWKV_DATA_DIR")
    return folder


def cache_folder() -> Path:
    """Where what can be made again is kept: `RWKV_CACHE_DIR`, or the platform's folder for it.

    Raises:
        StorageError: There is no home folder.
    """
    named = os.environ.get("RWKV_CACHE_DIR")
    folder = expanded(named) if named else Path(platformdirs.user_cache_dir("rwkv", False))
    if not folder.is_absolute() and not named:
        raise StorageError("there is no home folder to keep a cache in", hint="set RWKV_CACHE_DIR")
    return folder


def prefix_folder() -> Path:
    """Where the states of prompts are kept that were read.

    Raises:
        StorageError: There is no home folder.
    """
    return cache_folder() / "prefix"


def named_native_library() -> Path | None:
    """Give the C++ library to use instead of our own: `RWKV_NATIVE_LIBRARY`."""
    named = os.environ.get("RWKV_NATIVE_LIBRARY")
    return expanded(named) if named else None


def named_compiler() -> str | None:
    """Give the C++ compiler's command line that was asked for: `CXX`, as everywhere."""
    return os.environ.get("CXX") or None


def config_file() -> Path:
    """Where the user's settings are read from: `RWKV_CONFIG`, or `config.toml` in the platform's
    folder.
    """
    named = os.environ.get("RWKV_CONFIG")
    if named:
        return expanded(named)
    folder = Path(platformdirs.user_config_dir("rwkv", False))
    return folder / "config.toml" if folder.is_absolute() else _NOWHERE


@dataclass(frozen=True, slots=True)
class Network:
    """What the environment says of the way to models.

    Attributes:
        endpoint: Where they are.
        proxies: Environment variable to the proxy it names; may hold a password.
        token: Where a token is, never the token; None when there is none.
        offline: The variable that forbids to ask the network; None when none does.
        cache: Folder that other programs fill with models.
    """

    endpoint: str
    proxies: dict[str, str]
    token: str | None
    offline: str | None
    cache: Path


def network() -> Network:
    """Look at the environment variables that Hugging Face's programs read, and at those of proxies;
    no network is asked.
    """
    found = {name: value for name, value in os.environ.items() if value}
    home = expanded(found.get("HF_HOME", "~/.cache/huggingface"))
    file = Path(found.get("HF_TOKEN_PATH") or home / "token")
    token = next((name for name in _TOKENS if name in found), str(file) if file.is_file() else None)
    off = (n for n in _OFFLINE if found.get(n, "0").lower() not in ("0", "false", "no", "off"))
    return Network(
        endpoint=found.get("HF_ENDPOINT", "https://huggingface.co"),
        proxies={name: found[name] for name in sorted(found) if name.lower() in _PROXIES},
        token=token,
        offline=next(off, None),
        cache=Path(found.get("HF_HUB_CACHE") or home / "hub"),
    )
