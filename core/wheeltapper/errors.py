"""Errors of the product: each says what was expected, what was found and how to mend it, and whose fault it is."""

from __future__ import annotations

from wheeltapper_command.errors import CommandError, NotFound, Refused, UsageError

__all__ = ["CommandError", "ConfigError", "NotFound", "PackError", "Refused", "UsageError"]


class ConfigError(UsageError):
    """A `fleet.toml` that cannot be used: the writer's to mend, before any work starts."""


class PackError(Refused):
    """A pack that must not serve: truncated, altered, of another version or of other kernels."""
