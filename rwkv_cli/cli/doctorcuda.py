"""What `rwkv doctor` says about GPUs: torch, the CUDA driver and its cards, NVRTC, the kernels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rwkv_cli.cli.doctorprobe import Probe
from rwkv_cli.cli.settings import collect
from rwkv_cli.errors import RwkvError
from rwkv_cli.native.cuda import cache, nvrtc
from rwkv_cli.native.cuda.driver import OLDEST, Device, Driver, dotted, no_card
from rwkv_cli.native.cuda.errors import CudaError
from rwkv_cli.native.cuda.loading import TYPES_OF, planned

_PCI = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"  # its number as a vendor of PCI cards


def torch_metadata() -> Probe:
    """Tell about torch from its metadata: importing it takes a second."""
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        number = version("torch")
        needs = requires("torch") or []
    except PackageNotFoundError:
        step = "pip install torch, to use a GPU or to run without the native library"
        return Probe("not installed", step, {"version": None, "cuda": False})
    local = number.partition("+")[2]
    cuda = local.startswith("cu") or (
        not local
        and sys.platform != "darwin"
        and any(need.startswith(("nvidia-", "cuda-")) for need in needs)
    )
    what = f"{number}, made {'with' if cuda else 'without'} CUDA"
    return Probe(
        what,
        "rwkv doctor --torch tells which GPUs it sees" if cuda else None,
        {"version": number, "cuda": cuda},
    )


def torch_devices() -> Probe:
    """Import torch and ask it for GPUs."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Probe(f"cannot be imported: {error}", "install torch again", {"version": None})
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = {"version": torch.__version__, "cuda": torch.version.cuda, "devices": devices}
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return Probe(f"{torch.__version__}, {cuda}, GPUs: {', '.join(devices) or 'none'}", None, facts)


def cuda() -> Probe:
    """Ask the CUDA driver, without torch, for its version and its cards."""
    facts: dict[str, Any] = {"driver": None, "devices": [], "error": None}
    try:
        driver = Driver()
        devices = driver.devices()
    except CudaError as error:
        facts["error"] = error.message
        return Probe(error.message, _driver_step(error), facts)
    facts["driver"] = dotted(driver.version)
    facts["devices"] = [_described(device) for device in devices]
    cards = ", ".join(
        f"cuda:{d.ordinal} {d.name} (sm_{d.sm}, {d.memory / 2**30:.1f} GiB)" for d in devices
    )
    return Probe(f"driver for CUDA {dotted(driver.version)}; {cards or 'no card'}", None, facts)


def _described(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "sm": device.sm,
        "memory": device.memory,
        "multiprocessors": device.multiprocessors,
    }


def _driver_step(error: CudaError) -> str | None:
    """Say what to do about a driver that does not work; nothing where there is no card."""
    if no_card(error):
        return "CUDA_VISIBLE_DEVICES may hide the cards" if _has_card() else None
    if "too old" in error.message:
        return f"install a driver for CUDA {dotted(OLDEST)} or newer"
    if error.code:
        return "start the machine again, or install the driver again"
    if _has_card():
        return "install NVIDIA's driver; a container needs to be given the GPUs (--gpus all)"
    return None


def _has_card() -> bool:
    """Tell whether there is hardware for a CUDA driver, where the system tells that."""
    try:
        vendors = [file.read_text().strip() for file in _PCI.glob("*/vendor")]
    except OSError:
        return False
    return _NVIDIA in vendors


def compiler() -> Probe:
    """Look for NVRTC as loading a model would."""
    driver = _driver()
    try:
        found = nvrtc.find(driver.version if driver else None)
    except CudaError as error:
        step = f"pip install {_wheel(driver)}" if driver else None
        return Probe(f"none: {error.message}", step, {"path": None, "version": None})
    facts = {
        "path": str(found.path),
        "version": dotted(found.version),
        "architectures": list(found.architectures),
    }
    return Probe(f"{dotted(found.version)}, {found.path}", None, facts)


def _wheel(driver: Driver) -> str:
    return "nvidia-cuda-nvrtc" if driver.version[0] > 12 else "nvidia-cuda-nvrtc-cu12"


def kernels() -> Probe:
    """Tell what the next model on a card would run with."""
    cached = [path.name for path in cache.kept()]
    wanted = collect({}).kernels or "auto"
    driver = _driver()
    cards = [_next_on(driver, device) for device in driver.devices()] if driver else []
    facts = {"wanted": wanted, "cards": cards, "cached": cached}
    if wanted == "torch":
        what = "not used: RWKV_KERNELS or the config file says torch"
        return Probe(what, None, facts)
    if not cards:
        return Probe("not used: there is no card for them", None, facts)
    if not torch_metadata().facts["cuda"]:
        what = "not used: torch is made without CUDA, and keeps the weights on the card"
        return Probe(what, "install a torch with CUDA, see pytorch.org", facts)
    what = "; ".join(f"cuda:{card['ordinal']} {card['result']}" for card in cards)
    broken = any(card["reason"] for card in cards)
    step = "models on such a card run on torch; a compiler of kernels may help (nvrtc, above)"
    return Probe(what, step if broken else None, facts)


def _next_on(driver: Driver, device: Device) -> dict[str, Any]:
    """Find out whether the kernels for a card are compiled already, and whether they can be."""
    card: dict[str, Any] = {"ordinal": device.ordinal, "target": None, "path": None}
    try:
        plans = {dtype: planned(driver, device.sm, types) for dtype, types in TYPES_OF.items()}
        folder = cache.path_of(plans["fp16"].key).parent
    except RwkvError as error:
        return {**card, "cached": [], "reason": error.message, "result": error.message}
    ready = [dtype for dtype, plan in plans.items() if cache.read(plan.key) is not None]
    what = "will be compiled by the first model on it"
    if ready:
        what = f"are compiled for {', '.join(ready)}"
    target = plans["fp16"].target
    card |= {"target": target, "path": str(folder)}
    return {**card, "cached": ready, "reason": None, "result": f"{target} {what}"}


def _driver() -> Driver | None:
    try:
        return Driver()
    except CudaError:
        return None
