"""Devices and precisions, and processes that were forked."""

from __future__ import annotations

import multiprocessing
import os

import torch

# The dtype of the weights. "bfloat16" is mixed: only the products of matrices are in it.
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}

# The process that `settle_after_fork` was last called in; not yet, in a child of `multiprocessing`
# that is the first to import this, whose parent may have computed with PyTorch.
_process = (
    None if type(multiprocessing.current_process()).__name__ == "ForkProcess" else os.getpid()
)


def settle_after_fork() -> None:
    """Let a process that was forked compute with one CPU thread. To be called before it computes.

    The workers of the thread that forked are not in the child, but OpenMP there believes that
    they are, and would wait for them for ever.
    """
    global _process
    if os.getpid() != _process:
        _process = os.getpid()
        torch.set_num_threads(1)


def available_devices() -> list[str]:
    """Names of the devices that PyTorch can use here, the fastest kind first."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def _own_device(devices: list[str]) -> str:
    """The device that "auto" takes in this process.

    Processes beside each other would else all compute on the first GPU: those of one training,
    which know their number on this machine by LOCAL_RANK, and those of a search by joblib's loky,
    which are numbered from 1, take them in turn.
    """
    gpus = [name for name in devices if name.startswith("cuda")]
    kind, _, number = multiprocessing.current_process().name.partition("-")
    rank = os.environ.get("LOCAL_RANK", "")
    if kind == "LokyProcess" and number.isdecimal():
        rank = str(int(number) - 1)
    return gpus[int(rank) % len(gpus)] if gpus and rank.isdecimal() else devices[0]


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto", a name or a `torch.device` into a device that is there.

    Where there are several GPUs, "auto" is the first, and in the processes of a search or of one
    training one each.

    Raises
    ------
    ValueError
        If the device is not known to PyTorch or not there; lists those that are.
    RuntimeError
        If it is CUDA, and this process was forked from one that had used it.
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
            # A name without a number means the device the caller has made current.
            resolved = torch.device("cuda", torch.cuda.current_device())
        name = resolved.type if resolved.type in ("cpu", "mps") else str(resolved)
        if name in devices:
            return _usable(resolved)
        problem = "it is not there"
    raise ValueError(
        f"device={str(device)!r} cannot be used: {problem}. Devices here: {', '.join(devices)}; "
        "device='auto' takes the first."
    )


def _usable(device: torch.device) -> torch.device:
    """Return the device, unless this process cannot start it."""
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise RuntimeError(
            "This process was forked from one that had used CUDA, and so cannot use it. Start "
            "processes with multiprocessing's 'spawn' or 'forkserver', or joblib's 'loky', or set "
            "device='cpu'."
        )
    return device


def resolve_saved_device(device: str | torch.device) -> torch.device:
    """Do the same for a model from elsewhere: where its device is not there, "auto" is."""
    try:
        return resolve_device(device)
    except ValueError:
        return resolve_device("auto")
