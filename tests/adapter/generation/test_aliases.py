"""Aliases and fallbacks of models."""

from __future__ import annotations

from adapter.generation.aliases import Aliases


def test_aliases_and_default_model() -> None:
    """Aliases of aliases are followed; an unknown name means the default model, a served one itself."""
    names = Aliases(aliases={"gpt": "small", "small": "qwen"}, default="gpt")
    assert [names.resolve(name, {"qwen", "llama"}) for name in ("gpt", "small", "llama", "other")] == [
        "qwen",
        "qwen",
        "llama",
        "qwen",
    ]
    assert Aliases().resolve("other", ()) == "other"


def test_fallback_chain() -> None:
    """Fallbacks of a name and of the model behind it, and their own fallbacks, are tried once each."""
    names = Aliases(
        aliases={"gpt": "qwen", "safe": "llama"},
        fallbacks={"qwen": ("safe", "phi"), "llama": ("phi",), "phi": ("smol",), "odd": ("gpt",)},
    )
    assert names.candidates("gpt", {"qwen"}) == ("qwen", "llama", "phi", "smol")
    assert names.candidates("qwen", ()) == ("qwen", "llama", "phi", "smol")
    assert names.candidates("odd", ()) == ("odd", "qwen", "llama", "phi", "smol")
    assert names.candidates("smol", ()) == ("smol",)


def test_mutual_fallbacks() -> None:
    """Of two models that are fallbacks of each other, each is tried once, the requested one first."""
    names = Aliases(aliases={"gpt": "a"}, fallbacks={"a": ("b",), "b": ("a", "gpt")})
    assert (names.candidates("a", ()), names.candidates("b", ())) == (("a", "b"), ("b", "a"))


def test_an_unavailable_model_with_fallbacks_is_known() -> None:
    """A model without a healthy node is replaced by its fallbacks, not by the default model for unknown names."""
    names = Aliases(fallbacks={"qwen": ("phi",)}, default="llama")
    assert names.candidates("qwen", {"llama"}) == ("qwen", "phi")
    assert names.candidates("other", {"llama"}) == ("llama",)
