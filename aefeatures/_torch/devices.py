"""Devices, precisions and forked processes."""

from __future__ import annotations

import multiprocessing
import os

import torch

# Dtype of the weights. "bfloat16" is mixed precision: only matrix products are in bfloat16.
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}

# Process that last called `settle_after_fork`. It is None at first if a forked child of
# `multiprocessing` imports this module, because its parent may have computed with PyTorch.
_process = (
    None if type(multiprocessing.current_process()).__name__ == "ForkProcess" else os.getpid()
)


def settle_after_fork() -> None:
    """Make a forked process compute with one CPU thread. Call this before PyTorch computes.

    OpenMP in the child would wait forever for worker threads that exist only in the parent.
    """
    global _process
    if os.getpid() != _process:
        _process = os.getpid()
        torch.set_num_threads(1)


def available_devices() -> list[str]:
    """Return the names of the devices that PyTorch can use here, the fastest kind first."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def _own_device(devices: list[str]) -> str:
    """Return the device for "auto" in this process.

    Processes of one distributed training or of one search take different GPUs. The former know
    their number on this machine from LOCAL_RANK. The latter are named by joblib's loky, which
    counts from 1.
    """
    gpus = [name for name in devices if name.startswith("cuda")]
    kind, _, number = multiprocessing.current_process().name.partition("-")
    rank = os.environ.get("LOCAL_RANK", "")
    if kind == "LokyProcess" and number.isdecimal():
        rank = str(int(number) - 1)
    return gpus[int(rank) % len(gpus)] if gpus and rank.isdecimal() else devices[0]


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto", a name or a `torch.device` into an available device.

    With several GPUs, "auto" is the first one. The processes of a search or of a distributed
    training get one GPU each.

    Raises
    ------
    ValueError
        If PyTorch does not know the device, or it is not available. The message lists the available
        devices.
    RuntimeError
        If the device is a GPU of CUDA, and this process was forked from one that had used CUDA.
    """
    settle_after_fork()
    devices = available_devices()
    if isinstance(device, str) and device == "auto":
        return _usable(torch.device(_own_device(devices)))
    problem = None
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        problem = str(error).splitlines()[0]
    else:
        if resolved.type == "cuda" and resolved.index is None and devices[0] == "cuda:0":
            _usable(resolved)
            # "cuda" without a number means the current device of the caller.
            resolved = torch.device("cuda", torch.cuda.current_device())
        name = resolved.type if resolved.type in ("cpu", "mps") else str(resolved)
        if name in devices:
            return _usable(resolved)
        problem = "it is not available"
    raise ValueError(
        f"device={str(device)!r} cannot be used: {problem}. Use device='auto' or one of "
        f"{', '.join(devices)}."
    )


def _usable(device: torch.device) -> torch.device:
    """Return the device, or raise an error if this process cannot use it."""
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise RuntimeError(
            "This process cannot use CUDA, because it was forked from a process that had used it. "
            "Start processes with multiprocessing's 'spawn' or 'forkserver', or with joblib's "
            "'loky', or set device='cpu'."
        )
    return device


def copy_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU on the device.

    A copy to a GPU goes through page-locked memory. Otherwise the host would wait for it, and for
    all steps before it.
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def resolve_saved_device(device: str | torch.device) -> torch.device:
    """Return the device of a saved model, or the device for "auto" if it is not available."""
    try:
        return resolve_device(device)
    except ValueError:
        return resolve_device("auto")
