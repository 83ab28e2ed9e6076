"""Artefacts of GGUF files: checked with the engine's tokenizer, and kept on disk."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from subnet.artefact_cache import ArtefactCache
from subnet.engines.llama_cpp.tokenizer_process import TokenizerProcess
from subnet.errors import InvalidRequest, SettingsError
from subnet.models.card import describe
from subnet.models.encoders import load_encoder
from subnet.models.resolve import resolve
from subnet.node_info import TokenizerArtefact
from subnet.tensors import TokenIds, token_ids
from tests.vocabularies import vocabulary


class FakeEngine:
    """Engine with the tokenizer of an artefact, except that `wrong` becomes token 5. `calls` counts."""

    version = "1"

    def __init__(self, path: Path, wrong: str = "", fails: bool = False) -> None:
        self.calls = 0
        self._encoder = load_encoder(TokenizerArtefact.from_bytes(describe(path)[1]))
        self._wrong = wrong
        self._fails = fails

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        self.calls += 1
        if self._fails:
            raise InvalidRequest("failed")
        return [token_ids([5]) if self._wrong and self._wrong in text else self._encoder.encode(text) for text in texts]

    def pieces(self) -> list[bytes]:
        return [b"piece"] * 512


def read(path: Path, engine: FakeEngine | TokenizerProcess, **options: Path | ArtefactCache) -> TokenizerArtefact:
    return TokenizerArtefact.from_bytes(describe(path, engine=engine, **options)[1])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def demo() -> Path:
    return resolve(None, print)


def test_an_equal_tokenizer_stays_with_the_gateway(demo: Path) -> None:
    """An artefact that encodes as the engine does is not changed by the check."""
    assert describe(demo, engine=FakeEngine(demo)) == describe(demo)


@pytest.mark.parametrize("wrong", ["1234567", "\u65e5", "\u0939", "Tabs", "\U0001f600"])
def test_a_tokenizer_that_differs_is_left_to_the_node(demo: Path, wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    """If the engine tokenizes digits, a script, spaces or emoji in another way, the node tokenizes, as a log line
    says.
    """
    artefact = read(demo, FakeEngine(demo, wrong))
    assert artefact.on_node
    assert (artefact.merges, artefact.pattern, artefact.tokenizer_json) == (None, None, None)
    assert len(artefact.pieces) == 49152
    assert artefact.control == list(range(17))
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "are tokenized by this node, which takes longer" in line


def test_llama_cpp_is_known_to_be_wrong_about_combining_marks(tmp_path: Path) -> None:
    """For pre-tokenizers whose combining marks llama.cpp treats in another way, texts with some are not compared."""
    path = vocabulary(tmp_path / "v.gguf", pre="tekken")
    assert not read(path, FakeEngine(path, "\u0939")).on_node
    assert read(path, FakeEngine(path, "\u65e5")).on_node


def test_an_engine_that_fails_is_not_the_reference(demo: Path) -> None:
    """If the engine cannot tokenize the texts of the check, the artefact stays as it is."""
    assert not read(demo, FakeEngine(demo, fails=True)).on_node


def test_an_unknown_tokenizer_is_left_to_the_node(tmp_path: Path, demo: Path) -> None:
    """Unknown pre-tokenizers and kinds of tokenizers are left to the node, and are an error without an engine."""
    engine = FakeEngine(demo)
    novel = vocabulary(tmp_path / "novel.gguf", pre="novel")
    assert read(novel, engine).on_node
    other = read(vocabulary(tmp_path / "other.gguf", model="rwkv"), engine)
    assert (other.on_node, other.pieces) == (True, engine.pieces())
    for path in (novel, tmp_path / "other.gguf"):
        with pytest.raises(SettingsError, match="--tokenizer"):
            describe(path)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_a_model_for_embeddings_is_refused(tmp_path: Path, demo: Path, kind: str) -> None:
    """Files of models for embeddings are refused, with what to do instead."""
    with pytest.raises(SettingsError, match="llama-server --embeddings"):
        read(vocabulary(tmp_path / "v.gguf", model=kind), FakeEngine(demo))


def test_a_given_tokenizer_that_differs_is_used(demo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A tokenizer.json that the operator has given is used even if it differs, and a log line says so."""
    given = tmp_path / "tokenizer.json"
    given.write_text(Tokenizer(models.BPE({"a": 0}, [])).to_str(), encoding="utf-8")
    assert read(demo, FakeEngine(demo), tokenizer_json=given).tokenizer_json is not None
    assert "may not be that of the model" in caplog.text


def test_the_engine_of_a_real_vocabulary(tmp_path: Path) -> None:
    """llama.cpp itself is the reference: it groups digits of some models in its own way, and not those of the demo."""
    for pre, on_node in (("smollm", False), ("deepseek-v3", False), ("tiny_aya", True)):
        path = vocabulary(tmp_path / f"{pre}.gguf", pre=pre)
        engine = TokenizerProcess(path)
        assert read(path, engine).on_node == on_node
        engine.close()


def test_an_artefact_is_made_once(demo: Path, tmp_path: Path) -> None:
    """The second time, an artefact comes from the cache, without the engine; for another vocabulary it is made."""
    engine, cache = FakeEngine(demo, "Tabs"), ArtefactCache(tmp_path / "cache")
    first, second = (describe(demo, engine=engine, cache=cache) for _ in range(2))
    assert first == second
    assert TokenizerArtefact.from_bytes(first[1]).on_node
    assert engine.calls == 1
    assert read(vocabulary(tmp_path / "v.gguf", pre="gpt-2"), engine, cache=cache).on_node
    assert engine.calls == 2
    engine.version = "2"
    read(demo, engine, cache=cache)
    assert engine.calls == 3


def test_a_damaged_or_unusable_cache_is_no_error(demo: Path, tmp_path: Path) -> None:
    """Damaged, cut and empty files count as missing and are replaced; a folder that cannot be made is ignored."""
    folder = tmp_path / "cache"
    cache = ArtefactCache(folder)
    expected = describe(demo, cache=cache)
    [file] = folder.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        assert cache.get(file.name) is None
        assert describe(demo, cache=cache) == expected
        assert file.read_bytes() == whole
    assert describe(demo, cache=ArtefactCache(file / "below-a-file")) == expected


def test_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Readers see a whole artefact or none while several threads write it."""
    cache, contents = ArtefactCache(tmp_path), [bytes([value]) * 200_000 for value in range(8)]

    def write(content: bytes) -> bool:
        cache.put("key", content)
        return cache.get("key") in contents

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(write, contents * 5))
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    """The files that were not used for the longest time are removed; the newest always stays."""
    cache = ArtefactCache(tmp_path, max_size=1000)
    for key in ("a", "b", "c"):
        cache.put(key, b"x" * 300)
    assert cache.get("a") is not None
    cache.put("d", b"x" * 300)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "d"}
    cache.put("large", b"x" * 5000)
    assert {path.name for path in tmp_path.iterdir()} == {"large"}


_PROGRAM = """\
import resource, sys
from pathlib import Path
from subnet.artefact_cache import ArtefactCache
cache = ArtefactCache(Path(sys.argv[1]))
cache.put("kept", b"small")
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
cache.put("kept", bytes(1000))
cache.put("new", bytes(1_000_000))
print(cache.get("kept"), cache.get("new"))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """What cannot be written whole is not kept, and neither is a part of it; what was kept stays."""
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("b'small' None\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
