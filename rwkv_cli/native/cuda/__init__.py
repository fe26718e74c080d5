"""The CUDA kernels: their sources, compiling them with NVRTC, and launching them by the driver."""
