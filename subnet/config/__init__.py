"""Reading of settings from a TOML file, the environment and the command line."""

from subnet.config.reader import SettingsReader

__all__ = ["SettingsReader"]
