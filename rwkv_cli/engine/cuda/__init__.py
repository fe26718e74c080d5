"""The engine of NVIDIA GPUs: kernels of our own around the vendor's matrix products."""
