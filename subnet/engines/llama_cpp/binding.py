"""Description of a C library's structs and functions, and its comparison with the library itself."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

# Bytes of a buffer for a struct that is larger than described; far more than any of these structs has.
_OVERSIZE = 4096


class Field(NamedTuple):
    """Field of a struct. `default` is its value in what the library returns: None for a null pointer."""

    name: str
    type: Any
    offset: int
    default: Any = None


@dataclass(frozen=True, eq=False)
class Struct:
    """Struct with the offsets and the size, in bytes, that the C compiler gives it."""

    name: str
    size: int
    fields: tuple[Field, ...]

    @functools.cached_property
    def ctype(self) -> type[ctypes.Structure]:
        """The ctypes class; each access returns the same one."""
        return type(self.name, (ctypes.Structure,), {"_fields_": [(field.name, field.type) for field in self.fields]})

    def difference(self) -> str | None:
        """Return how the ctypes class differs from the described offsets and size, None if it does not."""
        for field in self.fields:
            if (offset := getattr(self.ctype, field.name).offset) != field.offset:
                return f"{self.name}.{field.name} is at byte {offset} on this platform, expected {field.offset}"
        if (size := ctypes.sizeof(self.ctype)) != self.size:
            return f"{self.name} has {size} bytes on this platform, expected {self.size}"
        return None


@dataclass(frozen=True, eq=False)
class Binding:
    """Part of llama.cpp's interface, as the header of one version declares it.

    `version` is that of the xllamacpp wheel. `functions` are result and argument types by name; the name of a struct
    stands for the struct passed by value.
    """

    version: str
    structs: tuple[Struct, ...]
    functions: Mapping[str, tuple[Any, ...]]

    def struct(self, name: str) -> Struct:
        return next(struct for struct in self.structs if struct.name == name)

    def type_functions(self, library: ctypes.CDLL) -> None:
        """Set argument and result types of all functions. Raises AttributeError if the library lacks one."""
        for name, types in self.functions.items():
            function = getattr(library, name)
            function.restype, *function.argtypes = (self.struct(t).ctype if isinstance(t, str) else t for t in types)


class _Oversize(ctypes.Structure):
    """Result type that has enough memory whatever the library writes; the calling conventions allow it."""

    _fields_ = (("raw", ctypes.c_uint8 * _OVERSIZE),)


def find_mismatch(path: str, binding: Binding, version: str) -> str | None:
    """Return the first difference between the library at `path`, of wheel version `version`, and the binding.

    None if there is none. What a stripped library cannot tell, such as argument lists, is covered by the version alone.
    No function is called with a struct that could be too small for it.
    """
    if version.partition("+")[0] != binding.version:
        return f"version {version} is installed, expected {binding.version}"
    # Its function objects are its own: the types set here do not affect other users of the library.
    library = ctypes.CDLL(path)
    if missing := [name for name in binding.functions if not hasattr(library, name)]:
        return f"the library has no function {', '.join(missing)}"
    for struct in binding.structs:
        if (difference := struct.difference()) is not None:
            return difference
    return (
        _defaults_mismatch(library.llama_model_default_params, binding.struct("llama_model_params"))
        or _defaults_mismatch(library.llama_context_default_params, binding.struct("llama_context_params"))
        or _batch_mismatch(library, binding.struct("llama_batch"))
    )


def _defaults_mismatch(function: Any, struct: Struct) -> str | None:
    if (mismatch := _extent_mismatch(function, struct)) is not None:
        return mismatch
    function.restype, function.argtypes = _Oversize, []
    returned = struct.ctype.from_buffer(function())
    for field in struct.fields:
        value = getattr(returned, field.name)
        if isinstance(value, ctypes._Pointer):
            value = ctypes.cast(value, ctypes.c_void_p).value
        if value != field.default:
            return f"the default of {struct.name}.{field.name} is {value!r}, expected {field.default!r}"
    return None


def _batch_mismatch(library: ctypes.CDLL, struct: Struct) -> str | None:
    """Check a batch of tokens and one of embeddings: each lacks the other's pointer."""
    create, free = library.llama_batch_init, library.llama_batch_free
    free.restype, free.argtypes = None, [_Oversize]
    for dimensions, unused in ((0, "embd"), (1, "token")):
        arguments = [ctypes.c_int32(number) for number in (2, dimensions, 1)]
        if (mismatch := _extent_mismatch(create, struct, *arguments, free=free)) is not None:
            return mismatch
        create.restype = _Oversize
        memory = create(*arguments)
        try:
            if (mismatch := _pointers_mismatch(struct.ctype.from_buffer(memory), struct, unused)) is not None:
                return mismatch
        finally:
            free(memory)
    return None


def _pointers_mismatch(batch: ctypes.Structure, struct: Struct, unused: str) -> str | None:
    """Check a new batch for two tokens."""
    for field in struct.fields:
        is_set, expected = bool(getattr(batch, field.name)), field.name not in ("n_tokens", unused)
        if is_set != expected:
            state = "is not null" if is_set else "is null"
            return f"{struct.name}.{field.name} {state} in a new batch"
    # A list of pointers, one for each token, with a null pointer at its end.
    if [bool(batch.seq_id[index]) for index in range(3)] != [True, True, False]:
        return f"{struct.name}.seq_id is not a list that ends with a null pointer"
    return None


def _extent_mismatch(function: Any, struct: Struct, *arguments: Any, free: Any = None) -> str | None:
    """Compare which bytes the function writes, for a struct that it returns by value, with the fields and the size.

    `free` is called with each struct. Does nothing except on x86-64, where the address to write to is passed as the
    first argument; elsewhere it has a register of its own.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    write = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, *map(type, arguments))(address)
    written = [False] * _OVERSIZE
    values = b""
    # A byte written that equals one pattern differs from the other one.
    for pattern in (0xAA, 0x55):
        memory = _Oversize()
        ctypes.memset(ctypes.addressof(memory), pattern, _OVERSIZE)
        write(ctypes.addressof(memory), *arguments)
        values = bytes(memory.raw)
        written = [before or byte != pattern for before, byte in zip(written, values, strict=True)]
        if free is not None:
            free(memory)
    end = max((index + 1 for index, is_written in enumerate(written) if is_written), default=0)
    if end > struct.size:
        return f"{struct.name} has at least {end} bytes in the library, expected {struct.size}"
    position = 0
    for field in struct.fields:
        if _has_field(written[position : field.offset], values[position : field.offset]):
            return f"{struct.name} has an unexpected field at byte {position}"
        position = field.offset + ctypes.sizeof(field.type)
        if not any(written[field.offset : position]):
            return f"{struct.name}.{field.name}, at byte {field.offset}, is not written by the library"
    if _has_field(written[position : struct.size], values[position : struct.size]):
        return f"{struct.name} has an unexpected field at byte {position}"
    return None


def _has_field(written: Sequence[bool], values: bytes) -> bool:
    """Return whether bytes between two fields are more than padding, which compilers fill with zeros or leave alone."""
    return any(written) and (not all(written) or any(values))
