"""Process set-up that any service could use: flags, environment variables, configuration files with line numbers."""

from settings.command_line import CommandLine
from settings.yaml_file import ConfigurationError, read_yaml

__all__ = ["CommandLine", "ConfigurationError", "read_yaml"]
