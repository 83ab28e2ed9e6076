"""Settings from a file, the environment and flags, and the errors for invalid ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

import msgspec
import pytest

from adapter.config import Settings, load, reader
from subnet.errors import SettingsError
from subnet.http.node_spec import NodeSpec


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "adapter.toml"


def refusal(
    config: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> str:
    with pytest.raises(SettingsError) as caught:
        load(str(config) if config else None, environ=environ or {}, flags=flags)
    return str(caught.value)


def test_defaults() -> None:
    """Without any source, settings have their defaults."""
    assert load(environ={}) == Settings()


def test_precedence_of_sources(file: Path) -> None:
    """Flags take precedence over the environment, and the environment over the file."""
    file.write_text('host = "1.1.1.1"\nport = 1\nmax_attempts = 1\n')
    settings = load(str(file), environ={"ADAPTER_PORT": "2", "ADAPTER_MAX_ATTEMPTS": "2"}, flags={"max_attempts": 3})
    assert (settings.host, settings.port, settings.max_attempts) == ("1.1.1.1", 2, 3)


def test_flag_not_given() -> None:
    """A flag whose value is None does not override other sources."""
    assert load(environ={"ADAPTER_PORT": "2"}, flags={"port": None}).port == 2


def test_types_from_text() -> None:
    """Numbers, booleans and comma-separated lists are parsed from environment variables."""
    environ = {
        "ADAPTER_NODES": "http://a:1, http://b:2",
        "ADAPTER_ACCESS_LOG": "false",
        "ADAPTER_INTER_TOKEN_TIMEOUT": "2.5",
    }
    settings = load(environ=environ)
    assert settings.nodes == (NodeSpec(url="http://a:1"), NodeSpec(url="http://b:2"))
    assert settings.access_log is False
    assert settings.inter_token_timeout == 2.5


def test_lists_and_numbers_from_toml(file: Path) -> None:
    """TOML lists and numbers are used as they are; an integer is accepted for a float."""
    file.write_text('cors_origins = ["*"]\ninter_token_timeout = 2\n')
    assert load(str(file), environ={}) == Settings(cors_origins=("*",), inter_token_timeout=2.0)


def test_file_in_the_working_directory(tmp_path: Path, file: Path) -> None:
    """./adapter.toml is read if it exists."""
    file.write_text("port = 9\n")
    with chdir(tmp_path):
        assert load(environ={}).port == 9


def test_file_named_in_the_environment(file: Path) -> None:
    """ADAPTER_CONFIG names the settings file if no flag does."""
    file.write_text("port = 9\n")
    assert load(environ={"ADAPTER_CONFIG": str(file)}).port == 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot = 1", "prot: unknown setting; did you mean 'port'?"),
        ("hots = 1", "hots: unknown setting; did you mean 'host'?"),
        ("queue-timeout = 1", "queue-timeout: unknown setting; did you mean 'queue_timeout'?"),
        ("zzz = 1", "zzz: unknown setting"),
        ('port = "x"', "port: expected an integer from 0 to 65535, got 'x'"),
        ("port = 70000", "port: expected an integer from 0 to 65535, got 70000"),
        ("port = 80.5", "port: expected an integer from 0 to 65535, got 80.5"),
        ("port = true", "port: expected an integer from 0 to 65535, got true"),
        ("inter_token_timeout = 0", "inter_token_timeout: expected a number above 0, got 0"),
        ("inter_token_timeout = nan", "inter_token_timeout: expected a number above 0, got nan"),
        ("inter_token_timeout = inf", "inter_token_timeout: expected a number above 0, got inf"),
        ("hedge_quantile = 1", "hedge_quantile: expected a number from 0 to below 1, got 1"),
        ('log_level = "loud"', "log_level: expected one of debug, error, info, warning, got 'loud'"),
        (
            'log_level = "warn"',
            "log_level: expected one of debug, error, info, warning, got 'warn'; did you mean 'warning'?",
        ),
        ("log_level = 1", "log_level: expected one of debug, error, info, warning, got 1"),
        ("context_length = 0", "context_length: expected an integer of at least 1, got 0"),
        ('host = ""', "host: expected text that is not empty, got ''"),
        ("cors_origins = [1]", "cors_origins[0]: expected text, got 1"),
        ("cors_origins = 1", "cors_origins: expected a list, got 1"),
        ("access_log = 2", "access_log: expected true or false, got 2"),
        ('tool_format = ["qwen"]', "tool_format: expected model=calls or model=calls/reasoning, got 'qwen'"),
    ],
)
def test_invalid_settings_in_a_file(file: Path, text: str, expected: str) -> None:
    """A wrong setting in the file is one line with the file, the setting, what is expected and what was given."""
    file.write_text(text)
    message = refusal(file)
    assert message.removeprefix(f"{file}: ").startswith(expected)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port = ", ":1: invalid TOML: Invalid value"),
        ("port = 1\nhost = [\n", ":2: invalid TOML: Invalid value"),
        ("port = 1\n[nodes\n", ":2: invalid TOML: Expected ']' at the end of a table declaration"),
        ("port = 1\n\nport = 2\n", ":3: invalid TOML: Cannot overwrite a value"),
    ],
)
def test_invalid_toml(file: Path, text: str, expected: str) -> None:
    """A syntax error names the file and the line."""
    file.write_text(text)
    assert refusal(file) == f"{file}{expected}"


def test_all_mistakes_at_once(file: Path) -> None:
    """Every mistake in every source is reported, each with its place; a report counts them."""
    file.write_text(
        'hots = "a"\nport = -1\n[[nodes]]\nurk = 1\nconcurrency = 0\n[models."a.b"]\nstall = 1\nattempt_timeout = 0\n'
    )
    environ = {"ADAPTER_ACCESS_LOG": "maybe", "ADAPTER_HOTS": "x"}
    message = refusal(file, environ, {"workers": "0"})
    assert message.splitlines() == [
        f"{file}: hots: unknown setting; did you mean 'host'?",
        f"{file}: port: expected an integer from 0 to 65535, got -1",
        f"{file}: nodes[0].urk: unknown setting; did you mean 'url'?",
        f"{file}: nodes[0].concurrency: expected an integer of at least 1, got 0",
        f"{file}: nodes[0].url: required, but missing",
        f'{file}: models."a.b".stall: unknown setting',
        f'{file}: models."a.b".attempt_timeout: expected a number above 0, got 0',
        "ADAPTER_ACCESS_LOG: expected true or false, got 'maybe'",
        "ADAPTER_HOTS: unknown setting; did you mean 'ADAPTER_HOST'?",
        "--workers: expected an integer from 1 to 256, got '0'",
    ]
    report = SettingsError(message).report("adapter").splitlines()
    assert report[0] == "adapter: 10 invalid settings"
    assert report[10] == "  --workers: expected an integer from 1 to 256, got '0'"


@pytest.mark.parametrize("word", ["yes", "on", "true", "1", "TRUE", "Yes", " on "])
def test_words_for_true(word: str) -> None:
    """Booleans may be written as yes, on, true or 1, in any case."""
    assert load(environ={"ADAPTER_STRICT": word}).strict is True
    assert load(environ={}, flags={"strict": word}).strict is True


@pytest.mark.parametrize("word", ["no", "off", "false", "0", "FALSE", "Off"])
def test_words_for_false(word: str) -> None:
    """Booleans may be written as no, off, false or 0, in any case."""
    assert load(environ={"ADAPTER_ACCESS_LOG": word}).access_log is False


def test_empty_variables(file: Path) -> None:
    """An empty environment variable, as docker compose sets it, is ignored; the file's value is used."""
    file.write_text('port = 9\napi_keys = ["k"]\n')
    environ = {"ADAPTER_PORT": "", "ADAPTER_SECRET": "", "ADAPTER_API_KEYS": " ", "ADAPTER_CONFIG": ""}
    settings = load(str(file), environ=environ)
    assert (settings.port, settings.secret, settings.api_keys) == (9, None, ("k",))


def test_strings_in_a_file(file: Path) -> None:
    """A string in the file is parsed as in the environment."""
    file.write_text('port = "9"\nstrict = "yes"\ncors_origins = "http://a, http://b"\n')
    settings = load(str(file), environ={})
    assert (settings.port, settings.strict, settings.cors_origins) == (9, True, ("http://a", "http://b"))


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("ADAPTER_PORT", "x", "ADAPTER_PORT: expected an integer from 0 to 65535, got 'x'"),
        ("ADAPTER_ACCESS_LOG", "maybe", "ADAPTER_ACCESS_LOG: expected true or false, got 'maybe'"),
        ("ADAPTER_PROT", "1", "ADAPTER_PROT: unknown setting; did you mean 'ADAPTER_PORT'?"),
        ("ADAPTER_PATIENCE", "1", "ADAPTER_PATIENCE: unknown setting"),
        ("ADAPTER_MODELS", "a", "ADAPTER_MODELS: can only be set in a file, as tables"),
    ],
)
def test_invalid_environment_variables(variable: str, value: str, expected: str) -> None:
    """The error for an invalid environment variable has its name."""
    assert refusal(environ={variable: value}) == expected


def test_invalid_flag() -> None:
    """The error for an invalid flag has its name as it is typed."""
    assert refusal(flags={"local_nodes": 0}) == "--local-nodes: expected an integer from 1 to 64, got 0"


def test_missing_file(tmp_path: Path) -> None:
    """A settings file that is named but does not exist is an error."""
    assert refusal(tmp_path / "none.toml").endswith("none.toml: cannot be read: No such file or directory")
    assert refusal(environ={"ADAPTER_CONFIG": "/none.toml"}) == (
        "/none.toml: cannot be read: No such file or directory (from ADAPTER_CONFIG)"
    )


def test_kubernetes_service_links() -> None:
    """Variables that Kubernetes sets for a service called "adapter" are ignored."""
    links = {"SERVICE_HOST": "10.0.0.1", "PORT": "tcp://10.0.0.1:80", "PORT_80_TCP": "tcp://10.0.0.1:80"}
    assert load(environ={f"ADAPTER_{name}": value for name, value in links.items()}) == Settings()


def test_secrets_are_not_shown() -> None:
    """The repr of settings contains neither the secret nor clients' API keys."""
    assert "hush" not in repr(Settings(secret="hush", api_keys=("hush-1", "hush-2")))
    assert "api_keys=()" in repr(Settings())


def test_an_empty_key() -> None:
    """An empty API key is rejected, as it would accept everyone, and the error does not repeat the other keys."""
    with pytest.raises(SettingsError) as caught:
        load(environ={}, flags={"api_keys": ["hush", ""]})
    assert str(caught.value) == "--api-key[1]: expected text that is not empty"


def test_tool_formats() -> None:
    """Model names in tool_format may contain an equals sign."""
    settings = load(environ={"ADAPTER_TOOL_FORMAT": "qwen=hermes,a=b=none/none,r1=deepseek/think"})
    assert settings.tool_formats() == {"qwen": "hermes", "a=b": "none/none", "r1": "deepseek/think"}


@pytest.mark.parametrize("given", ["hermes", "qwen=", "=hermes", "qwen=herpes", "qwen=hermes/", "qwen=hermes/though"])
def test_invalid_tool_format(given: str) -> None:
    """The error for an invalid tool format repeats it and lists the formats."""
    expected = (
        r"expected model=calls or .*, got '.*'; calls is one of .*hermes.*, none, reasoning is one of .*think.*, none"
    )
    assert re.fullmatch(f"tool_format: {expected}", refusal(flags={"tool_format": [given]}))


def test_example_file() -> None:
    """The example file deploy/adapter.toml is valid."""
    settings = load(str(Path(__file__).parent.parent.parent / "deploy" / "adapter.toml"), environ={})
    assert (settings.workers, settings.policy) == (2, "power-of-two")


def test_frozen() -> None:
    """Settings cannot be modified."""
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]


def test_every_field_is_described() -> None:
    """Every setting has a help text, a default of its own type and a well-formed flag."""
    for field in reader.fields:
        assert field.help
        assert msgspec.convert(field.default, field.type) == field.default
        assert field.flag is None or field.flag.startswith("--")


def test_markdown_table() -> None:
    """The generated table of settings has a row for every setting."""
    table = reader.table()
    assert all(
        f"| `{field.name}` | `{field.variable}`, `{field.flag}` |" in table for field in reader.fields if field.flag
    )
    assert "| `models` |  | tables |" in table
    assert "| `access_log` | `ADAPTER_ACCESS_LOG`, `--access-log` | true or false | `true` |" in table
