"""Bytes of a weights file to named, memory-mapped buffers; knows no architecture and no device."""
