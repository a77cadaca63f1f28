"""A scorer behind TLS, with journal, grants and metrics, to which everything that goes wrong happens for minutes."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from pests import PESTS, connections, failed_handshakes, repeated_open, unknown_assets
from serving import Running, run_server
from test_swap import Releases, rss_kb
from wheeltapper.registry import Registry
from wheeltapper_scorer.certs import make_certificates

GRANTS = '[[grant]]\nidentity = "gw-1"\ngateways = ["gw"]\nassets = ["a-*"]\n'
AT_ONCE = 4
EACH = 60  # of each pest in a round; of what costs a handshake or a swap, a tenth


@dataclass
class Site:
    certs: Path
    server: Running

    @property
    def address(self) -> str:
        return f"localhost:{self.server.address.rpartition(':')[2]}"


@pytest.fixture
def site(registry: Registry, tmp_path: Path) -> Iterator[Site]:
    certs, grants = tmp_path / "certs", tmp_path / "grants.toml"
    make_certificates(certs, ["localhost", "gw-1"], days=1)
    grants.write_text(GRANTS)
    words = ["--tls-cert", certs / "localhost.pem", "--tls-key", certs / "localhost.key", "--client-ca",
             certs / "ca.pem", "--grants", grants, "--state", tmp_path / "state", "--segment-bytes", 1 << 20,
             "--assets-max", 500, "--metrics", "127.0.0.1:0"]  # fmt: skip
    with run_server(registry.path, *map(str, words)) as server:
        yield Site(certs, server)


async def plague(site: Site, registry: Registry, seconds: float) -> tuple[Counter[str], list[int]]:
    """Rounds of everything for so long: how often each was done, and the resident kB after each round."""
    pem = [(site.certs / name).read_bytes() for name in ("ca.pem", "gw-1.key", "gw-1.pem")]
    credentials, trust = grpc.ssl_channel_credentials(*pem), ssl.create_default_context(cafile=site.certs / "ca.pem")
    page, releases = site.server.wait_for("metrics")["address"], Releases(registry, site.server)
    done, resident, until = Counter[str](), list[int](), time.monotonic() + seconds
    async with grpc.aio.secure_channel(site.address, credentials) as channel:
        assert await repeated_open(channel) == "OK"
        while await unknown_assets(channel) == "OK":
            pass  # until it holds as many as it may
        while time.monotonic() < until:
            for name, (pest, ends) in PESTS.items():
                for _ in range(EACH // AT_ONCE):
                    found = await asyncio.gather(*(pest(channel) for _ in range(AT_ONCE)))
                    assert set(found) == {ends}, name
                done[name] += EACH
            for _ in range(EACH // 10):
                await connections(site.address, credentials)
                await failed_handshakes(site.address, trust)
                await releases.swap()
                await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{page}/metrics").read())
            for name in ("new connections", "failed handshakes", "swaps", "looks at the metrics"):
                done[name] += EACH // 10 * (1 + (name == "failed handshakes"))
            resident.append(rss_kb(site.server))
    return done, resident


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_stays_flat_whatever_goes_wrong(
    site: Site, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """SECONDS=1800 for longer than 100."""
    done, resident = asyncio.run(plague(site, registry, float(os.environ.get("SECONDS", "100"))))
    third = len(resident) // 3
    before, after = (float(np.median(part)) / 1024 for part in (resident[third : 2 * third], resident[-third:]))
    with capsys.disabled():
        print(f"\n{json.dumps(done, indent=1)}\n{len(resident)} rounds, {resident[0] / 1024:.0f} MB after the first, "
              f"{before:.1f} MB in the second third, {after:.1f} MB in the last")  # fmt: skip
    assert site.server.events().count("reloaded") == done["swaps"]
    assert "a call failed" not in site.server.events()
    assert after < 1.02 * before
