"""What is measured on a CUDA card: see `benchmarks/gpu.py`."""
