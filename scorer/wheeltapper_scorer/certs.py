"""A development authority and certificates under it, for trying TLS out: not for production, where keys are made where
they are used. Needs the extra `wheeltapper-scorer[tls]`."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from wheeltapper.errors import CommandError, Refused, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder, GeneralName, Name

AUTHORITY = "ca"
DAYS_MAX = 825
_AUTHORITY_DAYS = 3650
_CLOCK_SKEW = timedelta(minutes=5)
_LOOPBACK = ("127.0.0.1", "::1")


def make_certificates(folder: Path, names: list[str], days: float, renew: bool = False) -> list[Path]:
    """Write NAME.pem and NAME.key for every name, signed by the authority in `folder`, which is made where it is not
    there yet (ca.pem, ca.key). A name is a DNS name, an IP address or a URI; every certificate serves and calls.

    renew: replace certificates that are there. Returns the files written. Raises UsageError for a name that fits into
    no certificate, Refused where a file is there already, CommandError where `cryptography` is not installed.
    """
    if importlib.util.find_spec("cryptography") is None:
        raise CommandError(
            "certificates need the package cryptography, which is not installed",
            "pip install 'wheeltapper-scorer[tls]'",
        )
    from cryptography import x509  # noqa: PLC0415 - an optional extra
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

    if not 0 < days <= DAYS_MAX:
        raise UsageError(f"--days: expected more than 0 and at most {DAYS_MAX}, found {days:g}")
    stems = [_stem(name) for name in names]
    if AUTHORITY in stems or len(set(stems)) != len(stems):
        raise UsageError(f"--name: expected names that give different files, and none called {AUTHORITY!r}")
    folder.mkdir(parents=True, exist_ok=True)
    taken = [
        folder / f"{stem}{end}" for stem in stems for end in (".key", ".pem") if (folder / f"{stem}{end}").exists()
    ]
    if taken and not renew:
        raise Refused(f"{taken[0]}: expected no file, found one", "--renew replaces it, or choose another folder")
    written: list[Path] = []
    ca, ca_key = _authority(folder, written)
    for name, stem in zip(names, stems, strict=True):
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        key = _new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stem)])
        made = _signed(
            _builder(subject, ca.subject, key, days)
            .add_extension(x509.SubjectAlternativeName(_alternatives(name)), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False),
            ca_key,
        )
        written += _write(folder, stem, made, key)
    return written


def _authority(folder: Path, written: list[Path]) -> tuple[Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    certificate, key_file = folder / f"{AUTHORITY}.pem", folder / f"{AUTHORITY}.key"
    if certificate.exists():
        try:
            found = load_pem_private_key(key_file.read_bytes(), password=None)
            known = x509.load_pem_x509_certificate(certificate.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            said = type(error).__name__
            raise Refused(f"{certificate}: expected an authority of `wheeltapper certs`, found none: {said}") from None
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.public_key() != known.public_key():
            raise Refused(f"{key_file}: expected the key of {certificate}, found another", "choose another folder")
        return known, found
    key = _new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wheeltapper development authority")])
    made = _signed(
        _builder(name, name, key, _AUTHORITY_DAYS).add_extension(x509.BasicConstraints(True, 0), critical=True), key
    )
    written += _write(folder, AUTHORITY, made, key)
    return made, key


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    return ec.generate_private_key(ec.SECP256R1())


def _builder(subject: Name, issuer: Name, key: EllipticCurvePrivateKey, days: float) -> CertificateBuilder:
    from cryptography import x509  # noqa: PLC0415

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _signed(builder: CertificateBuilder, key: EllipticCurvePrivateKey) -> Certificate:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    return builder.sign(key, hashes.SHA256())


def _alternatives(name: str) -> list[GeneralName]:
    from cryptography import x509  # noqa: PLC0415

    if "://" in name:
        return [x509.UniformResourceIdentifier(name)]
    try:
        return [x509.IPAddress(ipaddress.ip_address(name))]
    except ValueError:
        loopback = [x509.IPAddress(ipaddress.ip_address(one)) for one in _LOOPBACK if name == "localhost"]
        return [x509.DNSName(name), *loopback]


def _stem(name: str) -> str:
    """The file name of a name: the last part of a URI, anything but letters, digits, dots and dashes as a dash."""
    if not name.isascii() or not name.strip() or len(name) > 200:
        raise UsageError(f"--name: expected a DNS name, an IP address or a URI in ASCII, found {name!r}")
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", name.rstrip("/").rpartition("/")[2]).strip(".-")
    if not stem:
        raise UsageError(f"--name: expected a name with letters or digits, found {name!r}")
    return stem


def _write(folder: Path, stem: str, certificate: Certificate, key: EllipticCurvePrivateKey) -> list[Path]:
    """The key first, each put in place whole: a scorer that looks between the two keeps what it has."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths = [folder / f"{stem}.key", folder / f"{stem}.pem"]
    for path, raw, mode in zip(paths, (secret, certificate.public_bytes(pem)), (0o600, 0o644), strict=True):
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(raw)
        temporary.replace(path)
    return paths
