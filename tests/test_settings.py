"""Settings: three sources, one Struct, one clear line for a mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

import msgspec
import pytest

from adapter.settings import Settings, load, reader
from subnet.errors import SettingsError
from subnet.upstream.spec import NodeSpec


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "adapter.toml"


def refusal(
    config: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> str:
    with pytest.raises(SettingsError) as caught:
        load(str(config) if config else None, environ=environ or {}, flags=flags)
    return str(caught.value)


def test_nothing_given() -> None:
    """Without any source the defaults hold."""
    assert load(environ={}) == Settings()


def test_later_wins(file: Path) -> None:
    """Flags win over the environment, which wins over the file."""
    file.write_text('host = "1.1.1.1"\nport = 1\nmax_attempts = 1\n')
    settings = load(str(file), environ={"ADAPTER_PORT": "2", "ADAPTER_MAX_ATTEMPTS": "2"}, flags={"max_attempts": 3})
    assert (settings.host, settings.port, settings.max_attempts) == ("1.1.1.1", 2, 3)


def test_flag_not_given() -> None:
    """A flag that is None was not given."""
    assert load(environ={"ADAPTER_PORT": "2"}, flags={"port": None}).port == 2


def test_types_from_text() -> None:
    """The environment is text: numbers, lists with commas and booleans come out of it."""
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
    """TOML's own types are taken as they are; an integer does where a number is wanted."""
    file.write_text('cors_origins = ["*"]\nstall_timeout = 2\n')
    assert load(str(file), environ={}) == Settings(cors_origins=("*",), inter_token_timeout=2.0)


def test_file_in_the_working_directory(tmp_path: Path, file: Path) -> None:
    """./adapter.toml is read where there is one."""
    file.write_text("port = 9\n")
    with chdir(tmp_path):
        assert load(environ={}).port == 9


def test_file_named_in_the_environment(file: Path) -> None:
    """ADAPTER_CONFIG names the file, unless a flag does."""
    file.write_text("port = 9\n")
    assert load(environ={"ADAPTER_CONFIG": str(file)}).port == 9


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "adapter.toml: prot: there is no such setting"),
        ('port = "1"', "adapter.toml: port: expected integer, got text"),
        ("port = 70000", "adapter.toml: port: expected integer <= 65535"),
        ("inter_token_timeout = 0", "adapter.toml: inter_token_timeout: expected number > 0.0"),
        ("inter_token_timeout = nan", "adapter.toml: inter_token_timeout: expected number > 0.0"),
        ('log_level = "loud"', "adapter.toml: log_level: expected one of debug, error, info, warning"),
        ("context_length = 0", "adapter.toml: context_length: expected integer >= 1"),
        ("cors_origins = [1]", "adapter.toml: cors_origins[0]: expected text, got integer"),
        ("cors_origins = 1", "adapter.toml: cors_origins: expected list, got integer"),
        ("port = ", "adapter.toml: not TOML: "),
    ],
)
def test_wrong_in_the_file(file: Path, text: str, told: str) -> None:
    """A wrong setting in the file is one line that names file and setting."""
    file.write_text(text)
    message = refusal(file)
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ADAPTER_PORT", "x", "ADAPTER_PORT: expected integer, got text"),
        ("ADAPTER_ACCESS_LOG", "maybe", "ADAPTER_ACCESS_LOG: expected true or false, got text"),
        ("ADAPTER_PROT", "1", "ADAPTER_PROT: there is no such setting"),
    ],
)
def test_wrong_in_the_environment(variable: str, value: str, told: str) -> None:
    """A wrong variable is named as it is written."""
    assert refusal(environ={variable: value}) == told


def test_wrong_flag() -> None:
    """A wrong flag is named as it is written."""
    assert refusal(flags={"local_nodes": 0}) == "--local-nodes: expected integer >= 1"


def test_missing_file(tmp_path: Path) -> None:
    """A file that was asked for must be there."""
    assert refusal(tmp_path / "none.toml").endswith("none.toml: cannot be read: No such file or directory")


def test_kubernetes_service_links() -> None:
    """What Kubernetes adds for a service called "adapter" is not taken for settings."""
    assert load(environ={"ADAPTER_SERVICE_HOST": "10.0.0.1", "ADAPTER_PORT_80_TCP": "tcp://10.0.0.1:80"}) == Settings()


def test_secrets_are_not_shown() -> None:
    """A repr, which ends up in logs, does not have the secret, nor the clients' keys."""
    assert "hush" not in repr(Settings(secret="hush", api_keys=("hush-1", "hush-2")))
    assert "api_keys=()" in repr(Settings())


def test_an_empty_key() -> None:
    """It would let everybody in: it is refused, and the other keys are not repeated."""
    with pytest.raises(SettingsError) as caught:
        load(environ={}, flags={"api_keys": ["hush", ""]})
    assert str(caught.value) == "--api-key[1]: expected text of length >= 1"


def test_tool_formats() -> None:
    """Models may have an equals sign in their names."""
    settings = load(environ={"ADAPTER_TOOL_FORMAT": "qwen=hermes,a=b=none/none,r1=deepseek/think"})
    assert settings.tool_formats() == {"qwen": "hermes", "a=b": "none/none", "r1": "deepseek/think"}


@pytest.mark.parametrize("given", ["hermes", "qwen=", "=hermes", "qwen=herpes", "qwen=hermes/", "qwen=hermes/though"])
def test_a_wrong_tool_format(given: str) -> None:
    """The line repeats it, and names what there is."""
    with pytest.raises(SettingsError) as caught:
        Settings(tool_format=(given,)).tool_formats()
    expected = r"expected model=calls or .*, with calls one of .*hermes.*, none and reasoning one of .*think.*, none"
    assert re.fullmatch(f"--tool-format {given}: {expected}", str(caught.value))


def test_the_example() -> None:
    """deploy/adapter.toml is one that a gateway takes."""
    settings = load(str(Path(__file__).parent.parent / "deploy" / "adapter.toml"), environ={})
    assert (settings.workers, settings.policy) == (2, "power-of-two")


def test_frozen() -> None:
    """Nobody changes settings after they were read."""
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]


def test_every_field_is_described() -> None:
    """Help, default and type of every setting come from the one table, and the default fits its own type."""
    for field in reader.fields:
        assert field.help
        assert msgspec.convert(field.default, field.type) == field.default
        assert field.flag is None or field.flag.startswith("--")


def test_table() -> None:
    """The README's table has a row for every setting."""
    table = reader.table()
    assert all(
        f"| `{field.name}` | `{field.variable}`, `{field.flag}` |" in table for field in reader.fields if field.flag
    )
    assert "| `models` |  | tables |" in table
    assert "| `access_log` | `ADAPTER_ACCESS_LOG`, `--access-log` | true or false | `true` |" in table
