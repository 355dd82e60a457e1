"""Files of arrays and a JSON document in the format of safetensors. They contain no code.

The metadata of a file have one entry, "aefeatures", which is the document as a string. The document
begins with a digest of the whole file (computed with zeros instead of the digest), the number of
the format, and the first version of aefeatures that reads the format. Every later format keeps
these three in place, so that an older version can tell which version to install. Feature names and
loss curves grow with the data and the epochs, and are stored as arrays. The header therefore stays
small, and its size is limited so that a bad file costs little time and memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy

from aefeatures._version import __version__

E = TypeVar("E")

# Latest format. A file has the first format that can hold it, so that older versions read it.
FORMAT = 2
# First version that reads each format. An older version asks its user to install this one.
_NEEDS = {1: "0.1.0", 2: "0.1.0"}

_KEY = "aefeatures"
_START = b'{"__metadata__":{"' + _KEY.encode() + b'":"{\\"digest\\":\\"'
_NO_DIGEST = "0" * 64
# Size in bytes. The Python objects of the worst JSON of this size take 60 MB.
_MAX_HEADER = 2**21


def write_file(
    path: str | os.PathLike[str],
    document: dict[str, Any],
    arrays: dict[str, np.ndarray],
    what: str = "model",
    temporary: str | None = None,
    format_: int = 1,
) -> None:
    """Write a file of a format for `read_file`.

    For `what` and `temporary` see `write_atomically`.

    Raises
    ------
    ValueError
        If the document is larger than `read_file` supports.
    OSError
        If the file cannot be written.
    """
    envelope = {"digest": _NO_DIGEST, "format": format_, "needs": _NEEDS[format_], **document}
    text = json.dumps(envelope, allow_nan=False, separators=(",", ":"))
    # safetensors writes the memory of an array, whatever its strides are.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data = safetensors.numpy.save(arrays, metadata={_KEY: text})
    header_end = 8 + int.from_bytes(data[:8], "little")
    if header_end > 8 + _MAX_HEADER:
        raise ValueError(
            f"The {what} cannot be saved: its parameters and the names of its {len(arrays)} arrays "
            f"take {header_end - 8} bytes, but at most {_MAX_HEADER} bytes can be saved."
        )
    digest = hashlib.sha256(data).hexdigest()
    header = data[:header_end].replace(_NO_DIGEST.encode(), digest.encode(), 1)
    write_atomically(path, [header, memoryview(data)[header_end:]], what, temporary)


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the document and the arrays of a file that `write_file` wrote.

    Raises
    ------
    ValueError
        If the file was not written by `write_file`, is truncated or damaged, or has a later format.
    OSError
        If the file cannot be read.
    """
    name = os.fspath(path)
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8 + len(_START))
        n_header = int.from_bytes(start[:8], "little")
        if len(start) < 8 or not _START.startswith(start[8:]) or not 0 < n_header <= _MAX_HEADER:
            raise ValueError(f"{name} is not a model saved by aefeatures.")
        if size < 8 + n_header:
            raise ValueError(f"{name} is truncated: {size} bytes are less than its header takes.")
        file.seek(8)
        try:
            entries = _parse(file.read(n_header))
            document = _parse(entries.pop("__metadata__")[_KEY])
            end = max(count({"end": entry["data_offsets"][1]}, "end") for entry in entries.values())
            digest, format_ = document["digest"], count(document, "format")
        except Exception as error:
            raise ValueError(
                f"{name} is damaged: its header cannot be read ({reason(error)})."
            ) from error
        if format_ > FORMAT:
            raise ValueError(_newer_format_message(name, format_, document))
        if size != 8 + n_header + end:
            problem = "truncated" if size < 8 + n_header + end else "damaged"
            raise ValueError(f"{name} is {problem}: {size} bytes instead of {8 + n_header + end}.")
        file.seek(0)
        data = file.read()
    if not isinstance(digest, str) or digest != _digest(data, 8 + n_header, digest):
        raise ValueError(f"{name} is damaged: its contents are not those that were saved.")
    try:
        return document, safetensors.numpy.load(data)
    except Exception as error:
        raise ValueError(f"{name} is damaged: {reason(error)}") from error


def _digest(data: bytes, header_end: int, digest: str) -> str:
    header = data[:header_end].replace(digest.encode(), _NO_DIGEST.encode(), 1)
    hashed = hashlib.sha256(header)
    hashed.update(memoryview(data)[header_end:])
    return hashed.hexdigest()


def _parse(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object, and accept nothing that other readers might understand differently."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise ValueError("an object has the same name twice")
        return entries

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    parsed = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    if not isinstance(parsed, dict):
        raise TypeError("it is not an object")
    return parsed


def _newer_format_message(name: str, format_: int, document: dict[str, Any]) -> str:
    needs = str(document.get("needs"))
    # A message must not show any text of a file, so the version has to look like one.
    install = f">={needs}" if re.fullmatch(r"[0-9a-z.]{1,20}", needs) else " of a later version"
    return (
        f"{name} has format {format_}, but this version of aefeatures ({__version__}) reads "
        f"formats up to {FORMAT}. Install aefeatures{install}."
    )


def write_atomically(
    path: str | os.PathLike[str],
    chunks: Iterable[bytes | memoryview],
    what: str,
    temporary_name: str | None = None,
) -> None:
    """Write a temporary file and rename it to `path`, which is never a partial file.

    `what` names the content in errors. The temporary file has the `temporary_name` in the folder of
    `path`, by default a unique name.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    target = Path(path).resolve()  # a link stays a link
    temporary = target.parent / (temporary_name or f".aefeatures-{secrets.token_hex(8)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise OSError(
            error.errno, f"The {what} was not saved: {error.strerror}", os.fspath(path)
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make sure that a new name in `folder` survives a loss of power."""
    if os.name != "posix":  # other systems cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def typed(document: dict[str, Any], name: str, kind: type[E]) -> E:
    """Return a value of a document, which must have the type `kind`."""
    value = document.get(name)
    if type(value) is not kind:
        raise ValueError(f"{name} should be a {kind.__name__}, got {short(value)}.")
    return value


def count(document: dict[str, Any], name: str, end: int = 2**63) -> int:
    """Return a count of a document, which must be below `end`."""
    value = typed(document, name, int)
    if not 0 <= value < end:
        raise ValueError(f"{name} should be in [0, {end}), got {short(value)}.")
    return value


def short(value: Any) -> str:
    """Return the first 100 characters of a value's `repr`."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def reason(error: Exception) -> str:
    """Return the beginning of a message. It may go on with a stack, or with text of the file."""
    line = str(error).partition("\n")[0][:300]
    return line if type(error) is ValueError else f"{type(error).__name__}: {line}"
