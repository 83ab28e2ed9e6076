"""Generates subnet/engines/llama_cpp/header.py from the source distribution of the installed xllamacpp wheel.

    pip download --no-deps --no-binary xllamacpp --dest /tmp xllamacpp==VERSION
    python -m tests.llama_header /tmp/xllamacpp-VERSION.tar.gz

A development tool; it needs a C compiler, `cc`. The header is read with regular expressions, so what was read is handed
back to the compiler, as assertions beside the header itself: offset, size and type of each field, the number and types
of the arguments of each function, constants, and defaults, which stand in llama.cpp's C++ sources.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from subnet.engines.llama_cpp.binding import Binding, Field, Struct, find_mismatch

TARGET = Path(__file__).parent.parent / "subnet/engines/llama_cpp/header.py"
STRUCTS = ("llama_model_params", "llama_context_params", "llama_batch")
DEFAULTS = {
    "llama_model_params": ("llama_model_default_params", "src/llama-model.cpp"),
    "llama_context_params": ("llama_context_default_params", "src/llama-context.cpp"),
}
CONSTANTS = ("LLAMA_POOLING_TYPE_NONE", "LLAMA_POOLING_TYPE_LAST", "GGML_LOG_LEVEL_ERROR", "GGML_LOG_LEVEL_CONT")
FUNCTIONS = (
    "llama_backend_init",
    "llama_log_set",
    "llama_model_default_params",
    "llama_context_default_params",
    "llama_model_load_from_file",
    "llama_model_free",
    "llama_model_get_vocab",
    "llama_model_n_ctx_train",
    "llama_model_n_embd_out",
    "llama_model_size",
    "llama_init_from_model",
    "llama_free",
    "llama_n_ctx_seq",
    "llama_batch_init",
    "llama_batch_free",
    "llama_decode",
    "llama_get_logits_ith",
    "llama_set_embeddings",
    "llama_get_embeddings_ith",
    "llama_pooling_type",
    "llama_get_memory",
    "llama_memory_seq_rm",
    "llama_memory_seq_cp",
    "llama_vocab_n_tokens",
    "llama_vocab_is_eog",
    "llama_tokenize",
    "llama_token_to_piece",
)

SCALARS = {
    "bool": "c_bool",
    "float": "c_float",
    "int8_t": "c_int8",
    "int32_t": "c_int32",
    "uint32_t": "c_uint32",
    "uint64_t": "c_uint64",
    "size_t": "c_size_t",
}
POINTER = re.compile(r"POINTER\((.+)\)")


class Header:
    """Declarations in preprocessed C, with types as ctypes expressions."""

    def __init__(self, text: str) -> None:
        text = re.sub(r'"[^"\n]*"', '""', text).replace("_Bool", "bool")
        self._text = re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)", "", text)
        plain = re.findall(r"typedef\s+([\w\s*]+?[\s*])(\w+)\s*;", self._text)
        self._typedefs = {name: " ".join(what.split()) for what, name in plain}
        self._callbacks = dict(re.findall(r"typedef\s+([^;{}]*?\(\s*\*\s*(\w+)\s*\)[^;{}]*);", self._text))
        self._callbacks = {name: text for text, name in self._callbacks.items()}
        self._enums = dict(re.findall(r"enum\s+(\w+)\s*\{([^}]*)\}", self._text))

    def fields(self, struct: str) -> list[tuple[str, str]]:
        """Return name and type of each field of a struct, in order."""
        body = self._one(rf"struct\s+{struct}\s*\{{([^}}]*)\}}", struct)
        return [self._declaration(line, in_struct=True) for line in body.split(";") if line.strip()]

    def function(self, name: str) -> tuple[str, ...]:
        """Return the types of result and arguments; a struct passed by value is its quoted name."""
        result, arguments = self._one(rf"(?:^|[;{{}}])\s*([\w\s*]+?[\s*]){name}\s*\(([^()]*)\)\s*;", name)
        wanted = [] if arguments.strip() == "void" else arguments.split(",")
        return (self.type(result), *(self._declaration(argument)[1] for argument in wanted))

    def constant(self, name: str) -> int:
        for body in self._enums.values():
            value = -1
            for item in filter(None, map(str.strip, body.split(","))):
                key, _, expression = map(str.strip, item.partition("="))
                if expression and not re.fullmatch(r"-?\d+", expression):
                    # An expression that is not evaluated: no constant that is needed follows one.
                    break
                value = int(expression) if expression else value + 1
                if key == name:
                    return value
        raise ValueError(f"no constant {name} in the header")

    def type(self, declared: str, *, in_struct: bool = False) -> str:
        """Return the ctypes expression of a C type. Raises ValueError for an unsupported one."""
        stars = declared.count("*")
        words = [word for word in declared.replace("*", " ").split() if word not in ("const", "struct", "extern")]
        is_enum = "enum" in words
        base = " ".join(word for word in words if word != "enum")
        if is_enum:
            # As gcc and clang do: signed if a value is negative.
            found = "c_int32" if re.search(r"=\s*-", self._enums[base]) else "c_uint32"
        elif base in SCALARS:
            found = SCALARS[base]
        elif base == "char" and stars:
            found, stars = "c_char_p", stars - 1
        elif base in self._callbacks and not stars:
            return "c_void_p" if in_struct else self._callback(base)
        elif base in self._typedefs and self._typedefs[base].split()[-1] != base:
            return self.type(self._typedefs[base] + "*" * stars, in_struct=in_struct)
        elif base == "void" and not stars:
            return "None"
        elif stars:
            return "c_void_p"
        elif base in STRUCTS:
            return f'"{base}"'
        else:
            raise ValueError(f"unsupported type: {declared}")
        for _ in range(stars):
            found = f"POINTER({found})"
        return found

    def _callback(self, name: str) -> str:
        match = re.match(r"(.*?)\(\s*\*\s*\w+\s*\)\s*\((.*)\)", self._callbacks[name], re.DOTALL)
        assert match is not None, name
        types = [self.type(match[1]), *(self._declaration(argument)[1] for argument in match[2].split(","))]
        return f"CFUNCTYPE({', '.join(types)})"

    def _declaration(self, text: str, *, in_struct: bool = False) -> tuple[str, str]:
        match = re.fullmatch(r"\s*([\w\s*]+?[\s*])(\w+)\s*", text)
        if match is None:
            raise ValueError(f"unsupported declaration: {text.strip()}")
        return match[2], self.type(match[1], in_struct=in_struct)

    def _one(self, pattern: str, name: str) -> Any:
        found = re.findall(pattern, self._text, re.MULTILINE)
        if len(found) != 1:
            raise ValueError(f"{len(found)} declarations of {name} in the header, expected 1")
        return found[0]


def evaluate(type_: str) -> Any:
    return eval(type_, vars(ctypes))


def place(name: str, fields: Iterable[Field]) -> Struct:
    """Return the struct with the offsets and the size that ctypes computes."""
    fields = tuple(fields)
    computed = type(name, (ctypes.Structure,), {"_fields_": [(field.name, field.type) for field in fields]})
    placed = (field._replace(offset=getattr(computed, field.name).offset) for field in fields)
    return Struct(name, ctypes.sizeof(computed), tuple(placed))


def described(header: Header, name: str) -> Struct:
    """Return the struct without defaults."""
    return place(name, (Field(field, evaluate(type_), 0) for field, type_ in header.fields(name)))


def with_defaults(struct: Struct, path: str) -> Struct:
    """Return the struct with the defaults that the library returns."""
    if struct.name not in DEFAULTS:
        return struct
    function = getattr(ctypes.CDLL(path), DEFAULTS[struct.name][0])
    function.restype = struct.ctype
    values = function()
    fields = []
    for field in struct.fields:
        value = getattr(values, field.name)
        if isinstance(value, ctypes._Pointer):
            value = ctypes.cast(value, ctypes.c_void_p).value
        fields.append(field._replace(default=value))
    return Struct(struct.name, struct.size, tuple(fields))


def c_type(type_: str) -> str:
    """Return the C type of a ctypes expression."""
    if type_.startswith('"'):
        return f"struct {type_.strip(chr(34))}"
    if (match := POINTER.fullmatch(type_)) is not None:
        return f"{c_type(match[1])} *"
    if type_ in ("None", "c_void_p", "c_char_p") or type_.startswith("CFUNCTYPE"):
        return {"None": "void", "c_char_p": "const char *"}.get(type_, "void *")
    return next(name for name, expression in SCALARS.items() if expression == type_)


def assertions(header: Header, structs: Sequence[Struct], sources: Path) -> Iterator[str]:
    """Return lines of C that compile only if everything that was read is correct."""
    yield '#include <stddef.h>\n#include "llama.h"'
    yield "#define SAME(a, b) __builtin_types_compatible_p(a, b)"
    yield "#define CLAIM(what) _Static_assert(what, #what)"
    for struct in structs:
        yield f"CLAIM(sizeof(struct {struct.name}) == {struct.size});"
        for field, (_, type_) in zip(struct.fields, header.fields(struct.name), strict=True):
            yield f"CLAIM(offsetof(struct {struct.name}, {field.name}) == {field.offset});"
            actual = f"__typeof__(((struct {struct.name} *)0)->{field.name})"
            if type_ == "c_void_p":
                yield f"CLAIM(__builtin_classify_type(({actual})0) == __builtin_classify_type((void *)0));"
            else:
                yield f"CLAIM(SAME({actual}, {c_type(type_)}) || SAME({actual}, const {c_type(type_)}));"
        if struct.name in DEFAULTS:
            for field, expression in zip(struct.fields, defaults(struct.name, sources), strict=True):
                yield (
                    f"CLAIM({expression} == {field.default or 0:d});"
                    if field.default is None or isinstance(field.default, int)
                    else f"CLAIM({expression} == {field.default!r});"
                )
    for name in CONSTANTS:
        yield f"CLAIM({name} == {header.constant(name)});"
    for name in FUNCTIONS:
        result, *arguments = header.function(name)
        values = [f"*({c_type(type_)} *)0" if type_.startswith('"') else f"({c_type(type_)})0" for type_ in arguments]
        call = f"{name}({', '.join(values)})"
        if result == "c_void_p":
            yield f"const void * result_of_{name}(void) {{ return {call}; }}"
        else:
            yield f"CLAIM(SAME(__typeof__({call}), {c_type(result)}));"


def defaults(struct: str, sources: Path) -> list[str]:
    """Return the defaults as C expressions, in the order of the fields."""
    function, source = DEFAULTS[struct]
    text = (sources / source).read_text()
    body = re.search(rf"\b{function}\(\)\s*\{{\s*{struct} result = \{{(.*?)\}};", text, re.DOTALL)
    assert body is not None, f"no {function} in {source}"
    return [value.replace("nullptr", "0") for value in re.findall(r"/\*\.\w+\s*=\*/\s*([^,]+),", body[1])]


def compile_c(sources: Path, text: str, *flags: str) -> str:
    """Compile or preprocess C; an error has the compiler's own message."""
    folders = [f"-I{sources / folder}" for folder in ("include", "ggml/include")]
    command = ["cc", "-std=gnu11", "-x", "c", *folders, *flags, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return done.stdout


def render(header: Header, structs: Sequence[Struct], version: str) -> str:
    """Return the source of the generated module."""
    lines = [f"{name} = {header.constant(name)}" for name in CONSTANTS]
    lines += ["", "BINDING = Binding(", f'    version="{version}",', "    structs=("]
    for struct in structs:
        lines += [f'        Struct("{struct.name}", {struct.size}, (']
        for field, (_, type_) in zip(struct.fields, header.fields(struct.name), strict=True):
            default = "" if field.default is None else f", {field.default!r}"
            lines.append(f'            Field("{field.name}", {type_}, {field.offset}{default}),')
        lines += ["        )),"]
    lines += ["    ),", "    functions={"]
    for name in FUNCTIONS:
        types = ", ".join(header.function(name))
        lines.append(f'        "{name}": ({types}{"" if ", " in types else ","}),')
    lines += ["    },", ")", ""]
    body = "\n".join(lines)
    used = sorted(set(re.findall(r"\b(?:CFUNCTYPE|POINTER|c_\w+)\b", body)))
    return f'''"""llama.h of llama.cpp, as in xllamacpp {version}: generated by tests/llama_header.py, not to be edited.

To regenerate it for another version, see native.py. A field has its offset in bytes and, unless that is a null pointer,
its default.
"""

from __future__ import annotations

from ctypes import {", ".join(used)}

from subnet.engines.llama_cpp.binding import Binding, Field, Struct

{body}'''


def generate(sdist: Path) -> str:
    """Return the text of header.py. Exits with a message if the sources are not those of the installed wheel."""
    version = importlib.metadata.version("xllamacpp")
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    with tempfile.TemporaryDirectory() as folder, tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
        (root,) = Path(folder).iterdir()
        if (root / "src/xllamacpp/_version.py").read_text() != (package / "_version.py").read_text():
            raise SystemExit(f"{sdist} is not the source of the installed xllamacpp {version}")
        sources = root / "thirdparty/llama.cpp"
        header = Header(compile_c(sources, '#include "llama.h"', "-E", "-P"))
        library = str(next(package.glob("xllamacpp*.so")))
        structs = [with_defaults(described(header, name), library) for name in STRUCTS]
        compile_c(sources, "\n".join(assertions(header, structs, sources)), "-fsyntax-only", "-Werror")
    functions = {name: tuple(map(evaluate_or_name, header.function(name))) for name in FUNCTIONS}
    if (mismatch := find_mismatch(library, Binding(version, tuple(structs), functions), version)) is not None:
        raise SystemExit(f"the header does not describe the library: {mismatch}")
    return render(header, structs, version)


def evaluate_or_name(type_: str) -> Any:
    return type_.strip('"') if type_.startswith('"') else evaluate(type_)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path, help="source distribution of the installed version")
    TARGET.write_text(generate(parser.parse_args().sdist))
    for command in (["check", "--fix"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", str(TARGET)], check=True)


if __name__ == "__main__":
    main()
