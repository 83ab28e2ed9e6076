"""The description of llama.cpp's structs and functions, compared with the library in the installed wheel."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from subnet.engines.llama_cpp.binding import Binding, Field, Struct, find_mismatch
from subnet.engines.llama_cpp.header import BINDING
from subnet.engines.llama_cpp.native import BindingMismatch, load_library
from tests.llama_header import Header, place

FIELDS_OF_CONTEXT = BINDING.struct("llama_context_params").fields
FIELDS = [(struct.name, field.name) for struct in BINDING.structs for field in struct.fields]

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="what a function writes is seen on x86-64 only")


def library_path() -> str:
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    return str(next(Path(spec.origin).parent.glob("xllamacpp*.so")))


def changed(name: str, fields: Iterable[Field]) -> Binding:
    """Return the binding with other fields in one struct, at the offsets that they would have."""
    struct = place(name, fields)
    return replace(BINDING, structs=tuple(struct if old.name == name else old for old in BINDING.structs))


def mismatch_of(binding: Binding) -> str | None:
    return find_mismatch(library_path(), binding, BINDING.version)


def test_binding_describes_the_pinned_wheel() -> None:
    """The binding matches the installed library, and its version is the one in pyproject.toml."""
    assert mismatch_of(BINDING) is None
    project = tomllib.loads((Path(__file__).parent.parent.parent.parent / "pyproject.toml").read_text())["project"]
    assert f"xllamacpp=={BINDING.version}" in project["dependencies"]


@pytest.mark.parametrize("struct", BINDING.structs, ids=lambda struct: struct.name)
def test_offsets_and_size_are_those_of_ctypes(struct: Struct) -> None:
    """The binding's offsets and sizes equal those that ctypes computes on this platform."""
    placed = place(struct.name, struct.fields)
    assert (placed.size, placed.fields) == (struct.size, struct.fields)


@x86_64
@pytest.mark.parametrize(("struct", "field"), FIELDS)
def test_missing_field_is_detected(struct: str, field: str) -> None:
    """A field missing from the binding is a mismatch, unless all other offsets are unchanged, as with one before
    padding.
    """
    fields = [known for known in BINDING.struct(struct).fields if known.name != field]
    wrong = changed(struct, fields)
    is_same = (wrong.struct(struct).size, [*wrong.struct(struct).fields]) == (BINDING.struct(struct).size, fields)
    assert is_same or struct in (mismatch_of(wrong) or "")


@x86_64
@pytest.mark.parametrize("type_", [ctypes.c_bool, ctypes.c_uint32, ctypes.c_void_p])
@pytest.mark.parametrize("struct", [struct.name for struct in BINDING.structs])
def test_additional_field_is_detected(struct: str, type_: Any) -> None:
    """An additional field at the beginning of a struct is a mismatch."""
    fields = [Field("added", type_, 0), *BINDING.struct(struct).fields]
    assert struct in (mismatch_of(changed(struct, fields)) or "")


def test_other_default_is_detected() -> None:
    """A default that differs is reported with both values."""
    fields = [field._replace(default=513) if field.name == "n_ctx" else field for field in FIELDS_OF_CONTEXT]
    expected = "the default of llama_context_params.n_ctx is 512, expected 513"
    assert mismatch_of(changed("llama_context_params", fields)) == expected


def test_offset_of_another_platform_is_detected() -> None:
    """Offsets that differ from the platform's are a mismatch before any function is called."""
    context = BINDING.struct("llama_context_params")
    moved = replace(context, fields=(context.fields[0]._replace(offset=4), *context.fields[1:]))
    wrong = replace(BINDING, structs=(moved, BINDING.struct("llama_model_params"), BINDING.struct("llama_batch")))
    assert mismatch_of(wrong) == "llama_context_params.n_ctx is at byte 0 on this platform, expected 4"


def test_missing_function_is_detected() -> None:
    """A function that the library does not export is named in the mismatch."""
    wrong = replace(BINDING, functions={**BINDING.functions, "llama_kv_cache_clear": (None, ctypes.c_void_p)})
    assert mismatch_of(wrong) == "the library has no function llama_kv_cache_clear"


@pytest.mark.parametrize("version", ["2026.10.11548", "2026.10"])
def test_other_version_is_detected(version: str) -> None:
    """Another version is a mismatch even with equal structs, as the arguments of functions may differ."""
    expected = f"version {version} is installed, expected {BINDING.version}"
    assert find_mismatch(library_path(), BINDING, version) == expected


def test_build_of_the_same_version_matches() -> None:
    """A GPU build of the same version, which has a local version suffix, matches."""
    assert find_mismatch(library_path(), BINDING, f"{BINDING.version}+cu128") is None


def test_library_is_not_loaded_with_a_wrong_binding() -> None:
    """A wrong binding raises an error that says what differs, and the right one can be loaded afterwards."""
    without_batch = changed("llama_context_params", [field for field in FIELDS_OF_CONTEXT if field.name != "n_batch"])
    with pytest.raises(BindingMismatch, match=r"requires the package xllamacpp==.+: llama_context_params has"):
        load_library(without_batch)
    assert load_library() is load_library(BINDING)


def test_header_is_read() -> None:
    """Typedefs, enums, pointers and callbacks of a C header are converted to ctypes."""
    header = Header(
        """
        typedef int32_t token; struct memory; typedef struct memory * memory_t;
        typedef void (*log_callback)(enum kind level, const char * text, void * data);
        enum kind { KIND_A, KIND_B = 4, KIND_C, }; enum sign { NONE = -1 };
        struct llama_batch { int32_t n; token * ids; token ** lists; enum sign sign; _Bool on; log_callback log; };
        extern _Bool remove_tokens(memory_t mem, const token * ids, size_t n);
        struct llama_batch get(void);
        void set_log(log_callback log, const struct memory * data) __attribute__((deprecated("use (x)")));
        """
    )
    assert header.fields("llama_batch") == [
        ("n", "c_int32"),
        ("ids", "POINTER(c_int32)"),
        ("lists", "POINTER(POINTER(c_int32))"),
        ("sign", "c_int32"),
        ("on", "c_bool"),
        ("log", "c_void_p"),
    ]
    assert header.function("remove_tokens") == ("c_bool", "c_void_p", "POINTER(c_int32)", "c_size_t")
    assert header.function("get") == ('"llama_batch"',)
    assert header.function("set_log") == ("None", "CFUNCTYPE(None, c_uint32, c_char_p, c_void_p)", "c_void_p")
    assert header.constant("KIND_C") == 5


@pytest.mark.parametrize("declaration", ["int32_t numbers[4];", "unsigned flag : 1;", "struct other inner;"])
def test_unsupported_declaration_is_an_error(declaration: str) -> None:
    """Arrays, bit fields and nested structs in a C header raise ValueError."""
    with pytest.raises(ValueError, match="unsupported"):
        Header(f"struct llama_batch {{ int32_t n; {declaration} }};").fields("llama_batch")
