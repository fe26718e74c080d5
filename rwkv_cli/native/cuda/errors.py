"""What can go wrong with CUDA."""

from __future__ import annotations

from rwkv_cli.errors import RwkvError


class CudaError(RwkvError):
    """The CUDA driver or NVRTC is missing, or refused a call.

    Attributes:
        code: The status of the call; 0 when there was none.
        kernel: The kernel that the call was about; None when it was about none.
    """

    def __init__(self, message: str, *, code: int = 0, kernel: str | None = None) -> None:
        super().__init__(f"kernel {kernel}: {message}" if kernel else message)
        self.code = code
        self.kernel = kernel
