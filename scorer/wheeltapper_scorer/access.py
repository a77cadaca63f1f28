"""Who may speak for which assets. Who somebody is comes from the TLS handshake alone; what they may say comes from a
grants file that is read again when it changes, also for streams that are open. docs/security.md has the format."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

from wheeltapper.errors import NotFound, UsageError
from wheeltapper_proto import scoring_pb2

from wheeltapper_scorer.faults import CallError, Reason

_FILE_BYTES_MAX = 16 << 20
_SUBJECT_NAMES = ("peer_uri", "peer_dns")  # SANs as grpc hands them over; the common name counts where there are none
_KEYS = ("identity", "gateways", "classes", "assets")


@dataclass(frozen=True, slots=True)
class Grant:
    """What one identity may say: names it may give as Open.gateway, classes and assets, each as matching patterns."""

    gateways: re.Pattern[str]
    classes: re.Pattern[str]
    assets: re.Pattern[str]


Grants = Mapping[str, Sequence[Grant]]


def read_grants(path: Path) -> dict[str, list[Grant]]:
    """The grants of a file, by identity. Raises NotFound or UsageError, naming the entry that is wrong."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFound(f"no grants file at {path}", "docs/security.md shows one") from None
    if len(raw) > _FILE_BYTES_MAX:
        raise UsageError(f"{path}: expected at most {_FILE_BYTES_MAX:,} bytes, found more")
    try:
        document = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: expected TOML, found something else: {error}", "docs/security.md shows one"
        ) from None
    entries = document.pop("grant", [])
    if document or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{path}: expected nothing but [[grant]] entries, found {sorted(document)[:9] or 'grant'}")
    grants: dict[str, list[Grant]] = {}
    for number, entry in enumerate(entries, start=1):
        place = f"{path}: [[grant]] number {number}"
        identity = entry.get("identity")
        if not isinstance(identity, str) or not identity:
            raise UsageError(f"{place}: expected identity as a text, found {identity!r}")
        if unknown := set(entry) - set(_KEYS):
            raise UsageError(f"{place}: expected the keys {', '.join(_KEYS)}, found {sorted(unknown)}")
        grants.setdefault(identity, []).append(
            Grant(
                _patterns(place, "gateways", entry.get("gateways", [identity])),
                _patterns(place, "classes", entry.get("classes", ["*"])),
                _patterns(place, "assets", entry.get("assets")),
            )
        )
    return grants


class Access:
    """The rules in force. `grants` None: every authenticated identity may speak, under its own name, for any asset.
    `authenticated` False: there is no telling who speaks, and everybody may."""

    def __init__(self, authenticated: bool = False, grants: Grants | None = None) -> None:
        self.authenticated = authenticated
        self.grants = grants
        self.version = 0

    def replace(self, grants: Grants) -> None:
        """New rules, for open streams too: each is checked again with its next message."""
        self.grants = grants
        self.version += 1

    def caller(self, auth_context: Mapping[str, Iterable[bytes]]) -> Caller:
        """Who speaks, from grpc's AuthContext. Raises CallError NOT_GRANTED where nothing is granted to them at all."""
        return Caller(self, identities(auth_context) if self.authenticated else ())


class Caller:
    """One call's identity and what it has claimed so far."""

    def __init__(self, access: Access, names: Sequence[str]) -> None:
        self._access = access
        self._names = names
        self._claimed = "", ""  # the gateway and class of the latest Open …
        self._assets: set[str] = set()  # … and the assets of all, once each, however often they are named
        self._version = access.version
        if access.authenticated:
            self._granted()

    @property
    def name(self) -> str:
        """For the log."""
        return self._names[0] if self._names else ""

    def check_open(self, message: scoring_pb2.Open) -> None:
        """Raises CallError NOT_GRANTED unless the caller may speak under this name, for this class and these assets."""
        if not self._access.authenticated:
            return
        gateway, asset_class = self._claimed
        claimed = message.gateway or gateway, message.asset_class or asset_class
        self._check(*claimed, message.asset_ids)
        self._claimed = claimed  # a session lets no later Open name others
        self._assets.update(message.asset_ids)

    def check_asset(self, asset_class: str, asset: str) -> None:
        """Raises CallError NOT_GRANTED unless the caller may send this asset under some name."""
        if self._access.authenticated and self._access.grants is not None:
            granted = self._granted()
            if not any(grant.classes.match(asset_class) and grant.assets.match(asset) for grant in granted):
                raise CallError(Reason.NOT_GRANTED, f"asset {asset[:99]!r} is not granted")

    def check(self) -> None:
        """With every message: raises CallError NOT_GRANTED where new rules no longer allow what was opened."""
        if self._version != self._access.version:
            self._version = self._access.version
            if self._claimed[0]:
                self._check(*self._claimed, self._assets)

    def _granted(self) -> list[Grant]:
        grants = self._access.grants
        if grants is None:
            if not self._names:
                raise CallError(Reason.NOT_GRANTED, "this certificate has no name: no URI, no DNS name, no common name")
            return []
        found = [grant for name in self._names for grant in grants.get(name, ())]
        if not found:
            raise CallError(Reason.NOT_GRANTED, f"nothing is granted to {_shown(self._names)}")
        return found

    def _check(self, gateway: str, asset_class: str, assets: Iterable[str]) -> None:
        granted = self._granted()
        if self._access.grants is None:
            if not any(name in self._names for name in _speaks_as(gateway)):
                raise CallError(Reason.NOT_GRANTED, f"gateway: expected one of {_shown(self._names)}, as certified")
            return
        granted = [grant for grant in granted if any(map(grant.gateways.match, _speaks_as(gateway)))]
        if not granted:
            raise CallError(Reason.NOT_GRANTED, f"gateway: {_shown(self._names)} may not speak as {gateway[:99]!r}")
        granted = [grant for grant in granted if grant.classes.match(asset_class)]
        if not granted:
            raise CallError(Reason.NOT_GRANTED, f"asset_class: {gateway[:99]!r} may not send {asset_class[:99]!r}")
        for asset in assets:
            if not any(grant.assets.match(asset) for grant in granted):
                raise CallError(Reason.NOT_GRANTED, f"asset_ids: {gateway[:99]!r} may not send asset {asset[:99]!r}")


def identities(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """The certified names of the other side: URI and DNS names, or the common name of a certificate without any."""
    if "ssl" not in [_text(value) for value in auth_context.get("transport_security_type", ())]:
        return ()
    names = [_text(value) for kind in _SUBJECT_NAMES for value in auth_context.get(kind, ())]
    return tuple(names or [_text(value) for value in auth_context.get("x509_common_name", ())])


def _speaks_as(gateway: str) -> tuple[str, str]:
    """A gateway may have parts, one a class it streams: who may speak as "plant-1" may speak as "plant-1/pump"."""
    return gateway, gateway.rpartition("/")[0]


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _patterns(place: str, key: str, found: object) -> re.Pattern[str]:
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one for one in found):
        raise UsageError(f'{place}: expected {key} as a list of names or patterns such as "pump-*", found {found!r}')
    return re.compile("|".join(translate(one) for one in found))


def _shown(names: Sequence[str]) -> str:
    return " or ".join(repr(name[:99]) for name in names[:5]) or "a caller without a name"
