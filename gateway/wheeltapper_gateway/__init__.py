"""What a site installs: stream readings, read scores, survive outages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wheeltapper_gateway.answer import Answer
    from wheeltapper_gateway.channel import Tls
    from wheeltapper_gateway.gateway import Gateway
    from wheeltapper_gateway.settings import Settings

__all__ = ["Answer", "Gateway", "Settings", "Tls"]


def __getattr__(name: str) -> Any:
    """The public names on first use, so that listing the command's verbs does not load gRPC."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wheeltapper_gateway import answer, channel, gateway, settings  # noqa: PLC0415 - see above

    known = {"Answer": answer.Answer, "Gateway": gateway.Gateway, "Settings": settings.Settings, "Tls": channel.Tls}
    return known[name]
