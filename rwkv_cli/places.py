"""Where this program keeps models, chats and settings, and where models come from; the environment
may move each.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from rwkv_cli.errors import NotFoundError, StorageError

OFFICIAL_HUB = "https://huggingface.co"

_LONGEST_TOKEN = 4096
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


def hub_endpoint() -> str:
    """Where models are downloaded from: a mirror named by `HF_ENDPOINT`, or the hub itself."""
    return (os.environ.get("HF_ENDPOINT") or OFFICIAL_HUB).rstrip("/")


def hub_token() -> str | None:
    """Give the user's key to the hub: `HF_TOKEN`, or what the hub's own tools keep in a file."""
    if os.environ.get("HF_TOKEN"):
        return os.environ["HF_TOKEN"].strip()
    try:
        file = _token_file()
        if not file.is_file():
            return None
        with file.open(encoding="ascii") as opened:
            return opened.read(_LONGEST_TOKEN).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def hub_cache_folder() -> Path:
    """Where the hub's own tools keep what they downloaded: `HF_HUB_CACHE`, or beside the token."""
    named = os.environ.get("HF_HUB_CACHE")
    return expanded(named) if named else _hub_home() / "hub"


def _hub_home() -> Path:
    named = os.environ.get("HF_HOME")
    if named:
        return expanded(named)
    try:
        cache = os.environ.get("XDG_CACHE_HOME")
        return (expanded(cache) if cache else expanded("~/.cache")) / "huggingface"
    except NotFoundError:
        return _NOWHERE


def proxy_for(scheme: str, host: str) -> str | None:
    """Give the proxy that `HTTPS_PROXY` and its like, or the system, name for a host."""
    import urllib.request  # here: only a download needs it

    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(host):
        return None
    return proxies.get(scheme) or proxies.get("all")


def named_certificates() -> tuple[str | None, str | None]:
    """Give the file and the folder of the authorities to trust, where the user named one:
    `SSL_CERT_FILE`, `SSL_CERT_DIR`.
    """
    return os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None


def config_file() -> Path:
    """Where the user's settings are read from: `RWKV_CONFIG`, or `config.toml` in the platform's
    folder.
    """
    named = os.environ.get("RWKV_CONFIG")
    if named:
        return expanded(named)
    folder = Path(platformdirs.user_config_dir("rwkv", False))
    return folder / "config.toml" if folder.is_absolute() else _NOWHERE


def hub_token_place() -> str | None:
    """Say where the user's key to the hub is, never what it is: `HF_TOKEN`, or a file."""
    if os.environ.get("HF_TOKEN"):
        return "HF_TOKEN"
    file = _token_file()
    return str(file) if file.is_file() else None


def _token_file() -> Path:
    named = os.environ.get("HF_TOKEN_PATH")
    return expanded(named) if named else _hub_home() / "token"


def offline_by() -> str | None:
    """Name the variable that forbids to use the network: `RWKV_OFFLINE` or `HF_HUB_OFFLINE`; None
    when neither does.
    """
    for name in ("RWKV_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() not in ("", "0", "false", "no", "off"):
            return name
    return None


def named_proxies() -> dict[str, str]:
    """Give the proxies of the environment, by the name of the variable; they may hold passwords."""
    wanted = ("http_proxy", "https_proxy", "all_proxy")
    return {name: url for name, url in sorted(os.environ.items()) if url and name.lower() in wanted}
