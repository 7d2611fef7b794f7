"""Compiled kernels: numba's compiler, and where its results are kept."""

from collections.abc import Callable
from typing import Any

from numba import njit

Kernel = Callable[..., Any]


def compiled(kernel: Kernel) -> Kernel:
    """Compile at the first call and keep the result on disk; where nothing can be written, compile in each process."""
    try:
        return njit(cache=True)(kernel)
    except RuntimeError:
        return njit(kernel)
