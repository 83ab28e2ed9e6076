"""Settings of nodes and models: tables in a file, short forms in flags and variables."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.config import ModelSpec, Settings, load
from subnet.errors import SettingsError
from subnet.http.node_spec import NodeSpec

ROOT = Path(__file__).parent.parent.parent
FILE = """
nodes = ["http://gpu-1:8000"]
default_model = "qwen"

[aliases]
"gpt-4o-mini" = "qwen"

[fallbacks]
qwen = ["llama", "gpt-4o"]

[models."qwen"]
first_token_timeout = 30
"""
TABLES = """
[[nodes]]
url = "https://api.example.com/v1"
name = "example"
api_key_env = "EXAMPLE_KEY"
models = { "gpt-4o" = "vendor/gpt-4o-2024" }
headers = { "x-team" = "a" }
first_token_timeout = 60

[[nodes]]
url = "http://gpu-1:8000"
kind = "vllm"
lane = "token"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "adapter.toml"


def refusal(**flags: list[str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ={}, flags=flags)
    return str(caught.value)


def in_file(file: Path, text: str) -> str:
    """Return the error for a file with this text, without the file's name."""
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(str(file), environ={})
    return str(caught.value).removeprefix(f"{file}: ")


def test_names_in_a_file(file: Path) -> None:
    """Aliases, fallbacks and settings of single models are read from tables."""
    file.write_text(FILE)
    settings = load(str(file), environ={})
    assert settings.nodes == (NodeSpec(url="http://gpu-1:8000"),)
    assert settings.default_model == "qwen"
    assert settings.aliases == {"gpt-4o-mini": "qwen"}
    assert settings.fallbacks == {"qwen": ("llama", "gpt-4o")}
    assert settings.models == {"qwen": ModelSpec(first_token_timeout=30.0)}


def test_nodes_as_tables(file: Path) -> None:
    """All settings of a node are read from its table."""
    file.write_text(TABLES)
    example, vllm = load(str(file), environ={}).nodes
    assert (example.peer, example.api_key_env, example.first_token_timeout) == ("example", "EXAMPLE_KEY", 60.0)
    assert (example.models, example.headers) == ({"gpt-4o": "vendor/gpt-4o-2024"}, {"x-team": "a"})
    assert vllm == NodeSpec(url="http://gpu-1:8000", kind="vllm", lane="token")


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("http://gpu-1:8000", NodeSpec(url="http://gpu-1:8000")),
        ("vllm=http://gpu-1:8000", NodeSpec(url="http://gpu-1:8000", kind="vllm")),
        ("https://host/a=b", NodeSpec(url="https://host/a=b")),
        ("http://[::1]:8000/v1", NodeSpec(url="http://[::1]:8000/v1")),
    ],
)
def test_short_form_of_a_node(text: str, spec: NodeSpec) -> None:
    """A node in a flag or variable is an address, optionally after its type and "="."""
    assert load(environ={}, flags={"nodes": [text]}).nodes == (spec,)
    assert load(environ={"ADAPTER_NODES": f"{text},http://b"}).nodes == (spec, NodeSpec(url="http://b"))


def test_names_on_the_command_line() -> None:
    """Flags for aliases and fallbacks are NAME=VALUE; a fallback may have several values."""
    flags = {"aliases": ["a=b", "c=d"], "fallbacks": ["x=y,z", "y=z"]}
    settings = load(environ={}, flags=flags)
    assert settings.aliases == {"a": "b", "c": "d"}
    assert settings.fallbacks == {"x": ("y", "z"), "y": ("z",)}


def test_names_in_the_environment() -> None:
    """Aliases and fallbacks in variables are separated by commas; a value without a name belongs to the name
    before it.
    """
    settings = load(environ={"ADAPTER_ALIASES": "a=b, c=d", "ADAPTER_FALLBACKS": "x=y, z,y=z"})
    assert settings.aliases == {"a": "b", "c": "d"}
    assert settings.fallbacks == {"x": ("y", "z"), "y": ("z",)}


NAMES = st.text(st.characters(exclude_characters="=,", exclude_categories=["C", "Z"]), min_size=1)


@given(st.dictionaries(NAMES, st.lists(NAMES, min_size=1).map(tuple)))
def test_any_names(fallbacks: dict[str, tuple[str, ...]]) -> None:
    """Any fallbacks written as flags or as one variable are parsed back unchanged."""
    words = [f"{name}={','.join(others)}" for name, others in fallbacks.items()]
    assert load(environ={}, flags={"fallbacks": words}).fallbacks == fallbacks
    assert load(environ={"ADAPTER_FALLBACKS": " , ".join(words)}).fallbacks == fallbacks


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"nodes": ["gpu-1:8000"]}, "--node[0]: 'gpu-1:8000': expected an address such as http://host:8000"),
        ({"nodes": ["http://a", "ws://b"]}, "--node[1]: 'ws://b': expected an address such as http://host:8000"),
        ({"nodes": ["http://a:x"]}, "--node[0]: 'http://a:x': expected an address such as http://host:8000"),
        ({"nodes": ["http://a?key=1"]}, "--node[0]: expected an address without a query (?) or fragment (#)"),
        (
            {"nodes": ["vlm=http://a"]},
            (
                "--node[0].kind: expected one of llama-server, lmstudio, ollama, openai, sglang, subnet, tgi,"
                " transformers, vllm, got 'vlm'; did you mean 'vllm'?"
            ),
        ),
        (
            {"nodes": ["http://me:hush@a"]},
            "--node[0]: expected an address without user and password; set api_key instead",
        ),
        ({"aliases": ["a"]}, "--alias: expected NAME=VALUE, got 'a'"),
        ({"aliases": ["a=b,c"]}, "--alias: expected NAME=VALUE, got 'c'"),
        ({"fallbacks": ["a"]}, "--fallback: expected NAME=VALUE,..., got 'a'"),
        ({"aliases": ["=b"]}, "--alias: a name must not be empty"),
        ({"aliases": ["a="]}, "--alias.a: expected text that is not empty, got ''"),
        ({"aliases": ["a=b,b=a"]}, "aliases form a cycle: "),
    ],
)
def test_invalid_short_form(flags: dict[str, list[str]], expected: str) -> None:
    """The error for an invalid short form is one line that names it and what is expected, without passwords."""
    assert refusal(**flags).startswith(expected)
    assert "\n" not in refusal(**flags)
    assert "hush" not in refusal(**flags)


def test_several_invalid_short_forms() -> None:
    """All invalid short forms are reported, one line each."""
    lines = refusal(nodes=["a", "http://b", "c"], aliases=["x"]).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["--node[0]", "--node[2]", "--alias"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[nodes]]\nkind = "vllm"', "nodes[0].url: required, but missing"),
        ('[[nodes]]\nurl = "http://a"\nurk = 1', "nodes[0].urk: unknown setting; did you mean 'url'?"),
        (
            '[[nodes]]\nurl = "http://a"\nconcurrency = 0',
            "nodes[0].concurrency: expected an integer of at least 1, got 0",
        ),
        ('[[nodes]]\nurl = "http://a"\nlane = "fast"', "nodes[0].lane: expected one of chat, token, got 'fast'"),
        (
            '[[nodes]]\nurl = "http://a"\nmodalities = ["smell"]',
            "nodes[0].modalities[0]: expected one of audio, file, image, got 'smell'",
        ),
        ('[[nodes]]\nurl = "http://a"\nproxy = "a"', "nodes[0]: proxy: expected an address such as http://host:3128"),
        ('[[nodes]]\nurl = "http://a"\napi_key = 7', "nodes[0].api_key: expected text that is not empty"),
        (
            '[[nodes]]\nurl = "http://a"\napi_key = "x"\napi_key_env = "y"',
            "nodes[0]: only one of api_key, api_key_env and api_key_file may be set",
        ),
        ("[models.a]\nstall = 1", "models.a.stall: unknown setting"),
        (
            '[models."a/b"]\ninter_token_timeout = 0',
            'models."a/b".inter_token_timeout: expected a number above 0, got 0',
        ),
        ("[aliases]\na = 1", "aliases.a: expected text that is not empty, got 1"),
        ('models = "a"', "models: can only be set in a file, as tables"),
        ("models = 1", "models: expected a table, got 1"),
        ("nodes = [1]", "nodes[0]: expected a table, got 1"),
        ("nodes = { a = 1 }", "nodes: expected a list, got a table"),
    ],
)
def test_invalid_table(file: Path, text: str, expected: str) -> None:
    """The error for an invalid table is one line with the place in the table."""
    assert in_file(file, text) == expected


@pytest.mark.parametrize(
    ("given", "cycle"),
    [
        ({"aliases": {"a": "a"}}, "a -> a"),
        ({"aliases": {"a": "b", "b": "c", "c": "a"}}, "-> "),
    ],
)
def test_cycle_of_aliases(given: dict[str, object], cycle: str) -> None:
    """Aliases that form a cycle are rejected, and the error has the whole cycle."""
    with pytest.raises(SettingsError, match="aliases form a cycle: ") as caught:
        msgspec.convert(given, Settings)
    names = str(caught.value).rpartition(": ")[2].split(" -> ")
    assert cycle in str(caught.value)
    assert names[0] == names[-1]


def test_mutual_fallbacks() -> None:
    """A fallback may be an alias, and two models may be fallbacks of each other."""
    Settings(aliases={"small": "c"}, fallbacks={"a": ("small", "b"), "b": ("small", "a")})


def test_repeated_node() -> None:
    """A repeated node is used once; two nodes with the same name but different settings are an error."""
    a, key = NodeSpec(url="http://a"), NodeSpec(url="http://a/", api_key="hush")
    assert Settings(nodes=(a, a)).nodes == (a, a)
    with pytest.raises(SettingsError, match="http://a is given twice with different settings"):
        Settings(nodes=(a, key))
    Settings(nodes=(a, msgspec.structs.replace(key, name="other")))


def test_no_key_is_shown(file: Path) -> None:
    """API keys and passwords of nodes are neither in a repr nor in an error."""
    spec = NodeSpec(url="http://a", api_key="hush", headers={"authorization": "hush"})
    assert "hush" not in repr(Settings(nodes=(spec,)))
    assert "hush" not in in_file(file, '[[nodes]]\nurl = "http://a"\napi_key = "hush"\napi_key_env = "A"')
    assert "hush" not in refusal(nodes=["http://me:hush@a"])


def test_where_a_key_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's API key is read from its settings, an environment variable, or a file without its final line end."""
    monkeypatch.setenv("EXAMPLE_KEY", "from-env")
    (tmp_path / "key").write_text("from-file\n")
    assert NodeSpec(url="http://a").key() is None
    assert NodeSpec(url="http://a", api_key="given").key() == "given"
    assert NodeSpec(url="http://a", api_key_env="EXAMPLE_KEY").key() == "from-env"
    assert NodeSpec(url="http://a", api_key_file=str(tmp_path / "key")).key() == "from-file"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            NodeSpec(url="http://a", api_key_env="NO_SUCH_KEY"),
            "http://a: environment variable NO_SUCH_KEY (api_key_env) is not set",
        ),
        (NodeSpec(url="http://a", api_key_file="/none"), "http://a: api_key_file: cannot read /none"),
        (NodeSpec(url="http://a", name="b", ca_bundle="/none"), "b: ca_bundle: no such file: /none"),
    ],
)
def test_missing_key_or_bundle(spec: NodeSpec, expected: str) -> None:
    """A missing API key or CA bundle of a node is reported by `check`, before any request."""
    with pytest.raises(SettingsError) as caught:
        spec.check()
    assert str(caught.value) == expected


def test_settings_round_trip() -> None:
    """Settings with nodes and models are unchanged after encoding and decoding, as for a worker process."""
    nodes = (NodeSpec(url="http://a", models={"a": "b"}, api_key="k"),)
    settings = Settings(nodes=nodes, aliases={"x": "a"}, fallbacks={"a": ("b",)}, models={"a": ModelSpec()})
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings
