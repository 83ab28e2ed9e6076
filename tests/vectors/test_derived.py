"""Formats that are derived from real templates, as if no row described them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from time import thread_time

from adapter.generation.derived_format import derived_formats, derived_tags
from adapter.generation.model_format import UNKNOWN
from adapter.generation.probe_turns import REASONING, ProbeTurns, reading
from adapter.tools import ModelFormat
from tests.vectors.known_differences import DERIVED, NOT_DERIVED, check
from tests.vectors.templates import control_texts, format_of, id_of, load, template_paths
from tests.vectors.test_llama_cpp import TEMPLATES, agrees, applies, cases, read

PATHS = [path for path in template_paths() if load(path).supports_tools and format_of(path).tools != UNKNOWN]


def turns_of(path: Path) -> ProbeTurns:
    return ProbeTurns(load(path), control_texts(path), thread_time() + 3)


@cache
def derived(path: Path) -> ModelFormat | None:
    """Return the format of calls that is derived from a template, with the known tags of reasoning."""
    turns, tags = turns_of(path), format_of(path).format.tags
    calls = reading(list(derived_formats(turns, tags, control_texts(path))), tags, turns)
    return None if calls is None else ModelFormat(calls, tags)


def test_formats_are_derived() -> None:
    """Without their rows, at least 85 % of the formats of calls are derived, and the others are listed."""
    missing = {id_of(path) for path in PATHS if derived(path) is None}
    print(f"{len(PATHS) - len(missing)} of {len(PATHS)} formats of calls are derived")
    assert len(missing) <= 0.15 * len(PATHS)
    check(missing, NOT_DERIVED)


def test_tags_are_derived() -> None:
    """Without their rows, the tags of nearly all templates that write reasoning are derived, and none are others."""
    found, missing = 0, set()
    for path in PATHS:
        turns, known = turns_of(path), format_of(path).format.tags
        if known is None or not any(REASONING in turn.text for turn in turns.reasoned()):
            continue
        tags = derived_tags(turns, control_texts(path))
        if tags is None:
            missing.add(id_of(path))
        else:
            assert (tags.opening, tags.closing) == (known.opening, known.closing), id_of(path)
            found += 1
    print(f"{found} of {found + len(missing)} tags of reasoning are derived")
    check(missing, NOT_DERIVED)


def test_expectations() -> None:
    """A derived format meets the expectations that the row of the template meets."""
    pairs = [(case, derived(TEMPLATES / case.template)) for case in cases()[0] if applies(case)]
    applicable = [(case, found) for case, found in pairs if found is not None and agrees(case, read(case))]
    failed = {case.id for case, found in applicable if not agrees(case, read(case, found))}
    print(f"{len(applicable) - len(failed)} of {len(applicable)} expectations of llama.cpp are met by derived formats")
    check(failed, DERIVED)
