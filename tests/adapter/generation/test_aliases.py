"""The names of models: what they stand for, and what is asked instead."""

from __future__ import annotations

from adapter.generation.aliases import Aliases


def test_a_name_is_what_it_stands_for() -> None:
    """Aliases of aliases are followed; a name that nobody serves is the default's, one that is served is its own."""
    names = Aliases(aliases={"gpt": "small", "small": "qwen"}, default="gpt")
    assert [names.resolve(name, {"qwen", "llama"}) for name in ("gpt", "small", "llama", "other")] == [
        "qwen",
        "qwen",
        "llama",
        "qwen",
    ]
    assert Aliases().resolve("other", ()) == "other"


def test_a_chain_has_each_model_once() -> None:
    """Fallbacks are of a name or of the model behind it, and have fallbacks of their own."""
    names = Aliases(
        aliases={"gpt": "qwen", "safe": "llama"},
        fallbacks={"qwen": ("safe", "phi"), "llama": ("phi",), "phi": ("smol",), "odd": ("gpt",)},
    )
    assert names.candidates("gpt", {"qwen"}) == ("qwen", "llama", "phi", "smol")
    assert names.candidates("qwen", ()) == ("qwen", "llama", "phi", "smol")
    assert names.candidates("odd", ()) == ("odd", "qwen", "llama", "phi", "smol")
    assert names.candidates("smol", ()) == ("smol",)


def test_two_that_stand_in_for_each_other() -> None:
    """Each is asked once, whichever is first."""
    names = Aliases(aliases={"gpt": "a"}, fallbacks={"a": ("b",), "b": ("a", "gpt")})
    assert (names.candidates("a", ()), names.candidates("b", ())) == (("a", "b"), ("b", "a"))


def test_a_model_with_fallbacks_is_no_stranger() -> None:
    """A model that is away is not taken for a name of the client's own."""
    names = Aliases(fallbacks={"qwen": ("phi",)}, default="llama")
    assert names.candidates("qwen", {"llama"}) == ("qwen", "phi")
    assert names.candidates("other", {"llama"}) == ("llama",)
