"""numpy arrays as they travel: dtype, shape and one little-endian, C-contiguous buffer."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from subnet.errors import WireError

TokenIds = NDArray[np.int32]

_DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("int32", "int64", "uint16", "uint32", "float32")}
# numpy makes a dtype's name anew each time, which takes longer than all the rest of packing.
_NAMES = {both: name for name, dtype in _DTYPES.items() for both in (dtype, dtype.newbyteorder(">"))}


_LARGEST = np.iinfo(np.int32).max
# So many numbers Python looks through sooner than numpy has got ready to.
_FEW = 1024


class Tensor(msgspec.Struct, array_like=True, frozen=True):
    """One array on the wire. `data` holds prod(shape) items of `dtype`, little-endian, in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def pack(array: NDArray[np.generic]) -> Tensor:
    """Raises WireError for a dtype that does not travel."""
    name = _NAMES.get(array.dtype)
    if name is None:
        raise WireError(f"unsupported dtype {array.dtype.name}")
    return Tensor(name, array.shape, array.astype(_DTYPES[name], copy=False).tobytes())


def unpack(tensor: Tensor) -> NDArray[np.generic]:
    """A read-only view of the tensor's bytes. Raises WireError where dtype, shape and size disagree."""
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise WireError(f"unknown dtype {tensor.dtype[:32]!r}")
    if any(side < 0 for side in tensor.shape) or math.prod(tensor.shape) * dtype.itemsize != len(tensor.data):
        raise WireError(f"invalid tensor: {len(tensor.data)} bytes do not match {tensor.dtype} of shape {tensor.shape}")
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


def token_ids(tokens: ArrayLike) -> TokenIds:
    """Token ids as a private, one-dimensional int32 array; the caller's own array is never aliased.

    Raises ValueError for anything that is not a flat list of ids that int32 holds.
    """
    array = np.asarray(tokens)
    if array.size == 0:
        return np.empty(0, np.int32)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError("token ids must be a one-dimensional array of integers")
    if not _all_ids(array):
        raise ValueError("token ids must be between 0 and 2**31 - 1")
    return array.astype(np.int32, copy=True)


def _all_ids(array: NDArray[np.integer]) -> bool:
    if array.size <= _FEW:
        numbers = array.tolist()
        return bool(min(numbers) >= 0 and max(numbers) <= _LARGEST)
    return bool(array.min() >= 0 and (array.dtype == np.int32 or array.max() <= _LARGEST))
