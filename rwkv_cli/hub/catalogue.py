"""The models that can be had: their names, sizes and checksums."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue.

    Attributes:
        name: What people call it.
        file: Name of its file.
        size: Its bytes.
        sha256: Of the file; None where that is not known.
    """

    name: str
    file: str
    size: int
    sha256: str | None = None

    @property
    def bytes(self) -> int:
        """The size."""
        return self.size


_ENTRIES = (
    Entry("g1-0.1b", "rwkv7-g1d-0.1b-20260129-ctx8192.pth", 382223725),
    Entry("g1-0.4b", "rwkv7-g1d-0.4b-20260210-ctx8192.pth", 901776749),
    Entry(
        "g1-1.5b",
        "rwkv7-g1k-1.5b-20260930-ctx25600.pth",
        3055444605,
        "dfc1fc450641d5e00c5f412b5530a17b2a734ac02bde04d98c57608f5daaf773",
    ),
    Entry("g1-2.9b", "rwkv7-g1k-2.9b-20260930-ctx25600.pth", 5896273469),
    Entry("g1-7.2b", "rwkv7-g1k-7.2b-20260930-ctx25600.pth", 14400009405),
    Entry(
        "g1-13.3b",
        "rwkv7-g1k-13.3b-20260930-ctx25600.pth",
        26540868485,
        "31799b3f8207e74c1b47f359184ac1c658c927ff697971447f7bf0fd18ae393f",
    ),
)


def find(name: str) -> Entry | None:
    """Find a model by its name, by its size alone, or by its file."""
    for entry in _ENTRIES:
        if name.lower() in (entry.name, entry.name.removeprefix("g1-"), entry.file):
            return entry
    return None
