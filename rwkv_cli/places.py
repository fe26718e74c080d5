"""Where this program keeps models, chats and settings; the environment may move each."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def models_folder() -> Path:
    """Where installed models lie: `RWKV_MODELS_DIR`, or `models` in the platform's data folder."""
    named = os.environ.get("RWKV_MODELS_DIR")
    return Path(named).expanduser() if named else data_folder() / "models"


def chats_folder() -> Path:
    """Where conversations are kept."""
    return data_folder() / "chats"


def data_folder() -> Path:
    """Where this program keeps its data: `RWKV_DATA_DIR`, or the platform's folder for it."""
    named = os.environ.get("RWKV_DATA_DIR")
    return Path(named).expanduser() if named else Path(platformdirs.user_data_dir("rwkv", False))


def config_file() -> Path:
    """Where the user's settings are read from: `RWKV_CONFIG`, or `config.toml` in the platform's
    folder.
    """
    named = os.environ.get("RWKV_CONFIG")
    return Path(named).expanduser() if named else _platform_config()


def _platform_config() -> Path:
    return Path(platformdirs.user_config_dir("rwkv", False)) / "config.toml"
