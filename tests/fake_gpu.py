"""A GPU made of the machine's own memory, for tests of code for GPUs where there is none.

A tensor "on" it is an ordinary tensor whose storage is marked. So everything is computed, by the
same calls, and results can be compared with those of the CPU. But marked and other tensors do not
mix, as on a real GPU, and the places that wait for it are noted. PyTorch's own fake tensors cannot
do this: their backward pass on "cuda" needs a driver, and they know no values to go on with.
"""

import contextlib
import sys
from pathlib import Path
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import aefeatures

HERE = torch.device("cpu")
THERE = torch.device("cuda", 0)
MEMORY = 10**10
PACKAGE = str(Path(aefeatures.__file__).parent)
# Functions that are called in every step, and once in a training from one of them.
STEPS = {("gradients", "own_steps"), ("optimizer", "step"), ("training", "_after_step")}
ONCE = {("losses", "_loss_of_known")}

aten = torch.ops.aten
# What the host has to wait for, because it needs a value or the size of a result.
READS = {
    aten._local_scalar_dense,
    aten._linalg_check_errors,
    aten._unique2,
    aten.equal,
    aten.masked_select,
    aten.nonzero,
}
# They take no number of the CPU, and tensors of both devices.
STRICT = {aten._fused_adamw_, aten.cat, aten.index_select}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
MIXED = {aten.copy_, *INDEXED}


class FakeGPU:
    """A device "cuda:0" between `with`.

    Attributes
    ----------
    waits : set of (str, str)
        Where the host waited for the device in a step of a training: the function of the library,
        and why.
    doubles : set of (str, str)
        Where a step computed in float64, and what.
    """

    def __init__(self):
        self.waits = set()
        self.doubles = set()
        self._storages = {}
        self._pinned = {}
        self._generators = []

    def __enter__(self):
        self._entered = contextlib.ExitStack()
        for replaced in (
            mock.patch.object(torch, "Generator", self._generators_class()),
            mock.patch.object(torch.cuda, "device_count", return_value=1),
            mock.patch.object(torch.cuda, "current_device", return_value=0),
            mock.patch.object(torch.cuda, "is_available", return_value=True),
            mock.patch.object(torch.cuda, "init", return_value=None),
            mock.patch.object(torch.cuda, "mem_get_info", return_value=(MEMORY, MEMORY)),
            # Modes belong to a thread, so the training computes in this one.
            mock.patch("aefeatures._train.thread.TrainingThread.run", _run_here),
            mock.patch("aefeatures._nets.objective.autocast", self._autocast),
            mock.patch.object(torch.autograd, "_engine_run_backward", self._backward),
            _Calls(self),
            _Operations(self),
        ):
            self._entered.enter_context(replaced)
        return self

    def __exit__(self, *error):
        self._entered.close()

    def __contains__(self, tensor):
        return tensor.untyped_storage()._cdata in self._storages

    def device_of(self, tensor):
        return THERE if tensor in self else HERE

    def put(self, tensor):
        """Mark the tensor as one of the device, and return it."""
        storage = tensor.untyped_storage()
        # As long as the reference is kept no other storage has this address.
        self._storages[storage._cdata] = StorageWeakRef(storage)
        return tensor

    def pin(self, tensor):
        """Return a copy in memory that the device can read by itself."""
        copy = tensor.clone()
        storage = copy.untyped_storage()
        self._pinned[storage._cdata] = StorageWeakRef(storage)
        return copy

    def is_pinned(self, tensor):
        return tensor.untyped_storage()._cdata in self._pinned

    def wait(self, why):
        """Note where the library waits for the device, if it is in a step."""
        self._note(self.waits, why)

    def _note(self, places, what):
        frame, callers = sys._getframe(1), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(PACKAGE):
                callers.append((Path(frame.f_code.co_filename).stem, frame.f_code.co_name))
            frame = frame.f_back
        if STEPS & set(callers) and not ONCE & set(callers):
            places.add((".".join(callers[0]), what))

    def has(self, generator):
        return generator._cdata in {each._cdata for each in self._generators}

    def _generators_class(self):
        make, kept = torch.Generator, self._generators

        class Generator:  # a class, as annotations hold it
            def __new__(cls, device="cpu"):
                generator = make(HERE)
                if _is_there(device):
                    kept.append(generator)  # so that no other has its address
                return generator

        return Generator

    def _backward(self, *args, **kwargs):
        with _Calls(self):  # PyTorch has left it, but backward passes may be in Python
            return _run_backward(*args, **kwargs)

    def _autocast(self, kind, **settings):
        assert kind == "cuda", kind
        return torch.autocast("cpu", **settings)


_run_backward = torch.autograd._engine_run_backward


def _run_here(_, function, *args):
    with torch.inference_mode(False), torch.enable_grad():
        return function(*args)


def _is_there(device):
    return device is not None and torch.device(device).type == "cuda"


def _tensors(tree):
    """Return the tensors in arguments or results, five times as fast as PyTorch's own search."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return []
    return [tensor for branch in tree for tensor in _tensors(branch)]


class _Calls(TorchFunctionMode):
    """Calls from Python that name a device, ask for it, or leave PyTorch."""

    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        gpu, kwargs = self.gpu, dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__" and func.__self__ is torch.Tensor.device:
            return gpu.device_of(args[0])
        if func is torch.Tensor.__deepcopy__:
            copied = func(*args, **kwargs)
            return gpu.put(copied) if args[0] in gpu else copied
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and args[0] in gpu:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is torch.Tensor.tolist and args[0] in gpu:
            gpu.wait("tolist")
        if func is torch.Tensor.pin_memory:
            return gpu.pin(args[0])
        if func is torch.Tensor.cpu:
            return self._moved(args[0], HERE, {})
        if func is torch.Tensor.to:
            return self._to(*args, **kwargs)
        if name == "_parse_to":  # of `Module.to`, which makes no tensor
            return func(*args, **kwargs)
        there = _is_there(kwargs.get("device"))
        from_host = func in (torch.as_tensor, torch.tensor, torch.Tensor.new_tensor)
        if from_host and func is torch.Tensor.new_tensor:
            there = there or args[0] in gpu
        if there and "device" in kwargs:
            kwargs["device"] = HERE
        result = func(*args, **kwargs)
        if there and from_host:
            gpu.wait("copy to the device")
            result = result.clone()  # which shares no memory with an array
        return gpu.put(result) if there else result

    def _to(self, tensor, *args, **kwargs):
        given = [arg for arg in args if isinstance(arg, bool)]
        flags = {**dict(zip(("non_blocking", "copy"), given, strict=False)), **kwargs}
        for arg in (*args, *map(kwargs.get, ("device", "dtype", "other"))):
            if isinstance(arg, torch.Tensor):
                flags |= {"device": self.gpu.device_of(arg), "dtype": arg.dtype}
            elif isinstance(arg, torch.dtype):
                flags["dtype"] = arg
            elif arg is not None and not isinstance(arg, bool):
                flags["device"] = arg
        flags.pop("other", None)
        device = torch.device(flags.pop("device", None) or self.gpu.device_of(tensor))
        return self._moved(tensor, device, flags)

    def _moved(self, tensor, device, flags):
        gpu = self.gpu
        if device.type == gpu.device_of(tensor).type:
            return torch.Tensor.to(tensor, **flags) if flags else tensor
        flags["copy"] = True
        if device.type == "cpu":
            gpu.wait("copy to the host")
            with gpu_is_read(gpu):
                return torch.Tensor.to(tensor, **flags)
        if tensor.numel() and not (flags.get("non_blocking") and gpu.is_pinned(tensor)):
            gpu.wait("copy to the device")
        return gpu.put(torch.Tensor.to(tensor, **flags))


_reading = []


@contextlib.contextmanager
def gpu_is_read(gpu):
    _reading.append(gpu)
    try:
        yield
    finally:
        _reading.pop()


class _Operations(TorchDispatchMode):
    """Operations, those of the backward pass included."""

    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # skipping imports it, which takes seconds

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        gpu, kwargs = self.gpu, kwargs or {}
        packet = func.overloadpacket
        inputs = _tensors((args, kwargs))
        there = [tensor for tensor in inputs if tensor in gpu]
        if there:
            least = 0 if packet in STRICT else 1  # numbers of the CPU mix, as in PyTorch
            here = [t for t in inputs if t not in gpu and t.dim() >= least]
            if here and packet not in MIXED:
                shapes = [tuple(tensor.shape) for tensor in here]
                raise RuntimeError(f"{func} of tensors on cuda:0 got others on the CPU: {shapes}")
            if packet in READS:
                gpu.wait(packet.__name__)
            if here and packet is aten.copy_ and args[1] in gpu:
                gpu.wait("copy to the host")
            elif here and packet in MIXED:
                gpu.wait("copy to the device")
            if packet in INDEXED and any(t.dtype == torch.bool for t in _tensors(args[1])):
                gpu.wait("mask as an index")
        generator = kwargs.get("generator")
        drawn_there = generator is not None and gpu.has(generator)
        if generator is not None and there and not drawn_there:
            raise RuntimeError(f"{func} on cuda:0 got a generator of the CPU")
        if drawn_there and inputs and not there:
            raise RuntimeError(f"{func} on the CPU got a generator of cuda:0")
        result = func(*args, **kwargs)
        if there and not _reading:
            known = {tensor.untyped_storage()._cdata for tensor in inputs}
            for tensor in _tensors(result):
                if tensor.dtype == torch.float64:
                    gpu._note(gpu.doubles, packet.__name__)
                if tensor.untyped_storage()._cdata not in known:
                    gpu.put(tensor)
        return result
