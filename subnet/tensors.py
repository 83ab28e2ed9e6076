"""Encoding of numpy arrays: dtype, shape and one little-endian, C-contiguous buffer."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from subnet.errors import WireError

TokenIds = NDArray[np.int32]

_DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("int32", "int64", "uint16", "uint32", "float32")}
# numpy builds a dtype's name on each access, which takes longer than the rest of packing.
_DTYPE_NAMES = {variant: name for name, dtype in _DTYPES.items() for variant in (dtype, dtype.newbyteorder(">"))}

_MAX_TOKEN_ID = np.iinfo(np.int32).max
# Up to this size, Python's min() and max() of a list are faster than numpy's.
_PYTHON_MAX_SIZE = 1024


_Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Tensor(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Encoded array. `data` holds prod(shape) items of `dtype`, little-endian, in C order."""

    dtype: Annotated[str, msgspec.Meta(max_length=16)]
    # The product of more dimensions could be a number that takes hours to compute.
    shape: Annotated[tuple[_Dimension, ...], msgspec.Meta(max_length=8)]
    data: bytes


def pack(array: NDArray[np.generic]) -> Tensor:
    """Encode an array. Raises WireError for an unsupported dtype."""
    name = _DTYPE_NAMES.get(array.dtype)
    if name is None:
        raise WireError(f"unsupported dtype {array.dtype.name}")
    return Tensor(name, array.shape, array.astype(_DTYPES[name], copy=False).tobytes())


def unpack(tensor: Tensor) -> NDArray[np.generic]:
    """Return a read-only view of the tensor's bytes. Raises WireError if dtype, shape and size do not match."""
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise WireError(f"unknown dtype {tensor.dtype[:32]!r}")
    if any(dimension < 0 for dimension in tensor.shape) or math.prod(tensor.shape) * dtype.itemsize != len(tensor.data):
        raise WireError(f"invalid tensor: {len(tensor.data)} bytes do not match {tensor.dtype} of shape {tensor.shape}")
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


def token_ids(tokens: ArrayLike) -> TokenIds:
    """Return `tokens` as a new one-dimensional int32 array, which never shares memory with the argument.

    Accepts a flat list or array of integers, and an array of shape (1, n). Raises ValueError for anything else, and for
    ids outside 0 .. 2**31 - 1.
    """
    array = np.asarray(tokens)
    if array.size == 0:
        return np.empty(0, np.int32)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError("token ids must be a one-dimensional array of integers")
    if not _are_token_ids(array):
        raise ValueError("token ids must be between 0 and 2**31 - 1")
    return array.astype(np.int32, copy=True)


def _are_token_ids(array: NDArray[np.integer]) -> bool:
    if array.size <= _PYTHON_MAX_SIZE:
        numbers = array.tolist()
        return bool(min(numbers) >= 0 and max(numbers) <= _MAX_TOKEN_ID)
    return bool(array.min() >= 0 and (array.dtype == np.int32 or array.max() <= _MAX_TOKEN_ID))
