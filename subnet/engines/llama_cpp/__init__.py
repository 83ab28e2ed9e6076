"""Engine for GGUF files, run in this process with the llama.cpp library in the xllamacpp wheel."""

from __future__ import annotations

from subnet.engines.llama_cpp.fallback_engine import FallbackEngine, make_llama_cpp_engine
from subnet.engines.llama_cpp.llama_cpp_engine import LlamaCppEngine
from subnet.engines.llama_cpp.native_tokenizer import NativeTokenizer

__all__ = ["FallbackEngine", "LlamaCppEngine", "NativeTokenizer", "make_llama_cpp_engine"]
