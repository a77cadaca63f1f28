"""What each protection costs on the hot path, and how soon a killed scorer is warm: `make bench NAME=protection`.

The scorer's usual day (16 sensors, 352 features, 100 trees) in blocks of 256 readings, sent as a gateway sends them:
with credit for several blocks. Beside a scorer without protection: a journal at `ack=scored` and at `ack=durable`, TLS,
and TLS with client certificates and grants. Then what checking signatures adds to loading a release.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from wheeltapper.features import KERNELS
from wheeltapper.pack import open_pack
from wheeltapper.registry import Registry
from wheeltapper.signing import Signer, TrustedKeys, generate_keys
from wheeltapper_scorer.certs import make_certificates

from benchmarks import harness
from benchmarks.harness import Row, compared
from benchmarks.serve import servers, warm_start, work
from benchmarks.serve.credit import Crowd
from benchmarks.serve.servers import Server

OFF, SCORED, DURABLE = "no protection", "journal, ack=scored", "journal, ack=durable"
TLS, MUTUAL = "TLS", "TLS, client certificate, grants"
_ROWS = 256
_SHAPES = ((1, 1), (1, 8), (8, 8))  # streams, blocks in flight of each
_FILL = 380  # blocks until the longest window is full


@dataclass(frozen=True, slots=True)
class Protected:
    """A server and how one gets to it."""

    server: Server
    durable: bool = False
    tls: grpc.ChannelCredentials | None = None

    def connect(self) -> grpc.aio.Channel:
        if self.tls is None:
            return grpc.aio.insecure_channel(self.server.address)
        port = self.server.address.rpartition(":")[2]
        return grpc.aio.secure_channel(f"localhost:{port}", self.tls)


def measure(short: bool) -> list[Row]:
    servers.pin_client()
    with tempfile.TemporaryDirectory() as folder:
        pack = work.prepare(Path(folder), "windowed", windowed=True).pack
        with _started(pack, Path(folder)) as protected:
            rows = asyncio.run(_compare(protected, Path(folder), 3 if short else 9, 32 if short else 160, short))
        rows += _signatures(pack, Path(folder), 5 if short else 15)
        return rows + warm_start.measure(pack, Path(folder), 256 if short else 2_048)


@contextlib.contextmanager
def _started(pack: Path, folder: Path) -> Iterator[dict[str, Protected]]:
    certs = folder / "certs"
    make_certificates(certs, ["localhost", "gateway"], days=1)
    grants = folder / "grants.toml"
    grants.write_text('[[grant]]\nidentity = "gateway"\ngateways = ["*"]\nassets = ["*"]\n')
    ca, key, chain = ((certs / name).read_bytes() for name in ("ca.pem", "gateway.key", "gateway.pem"))
    shown = ["--tls-cert", str(certs / "localhost.pem"), "--tls-key", str(certs / "localhost.key")]
    asked = [*shown, "--client-ca", str(certs / "ca.pem"), "--grants", str(grants)]
    with contextlib.ExitStack() as stack:

        def begin(*words: str) -> Server:
            return stack.enter_context(servers.scorer(pack, *words))

        yield {
            OFF: Protected(begin()),
            SCORED: Protected(begin("--state", f"{folder}/scored")),
            DURABLE: Protected(begin("--state", f"{folder}/durable"), durable=True),
            TLS: Protected(begin(*shown), tls=grpc.ssl_channel_credentials(ca)),
            MUTUAL: Protected(begin(*asked), tls=grpc.ssl_channel_credentials(ca, key, chain)),
        }


async def _compare(protected: dict[str, Protected], folder: Path, rounds: int, blocks: int, short: bool) -> list[Row]:
    rows: list[Row] = []
    for streams, in_flight in _SHAPES:
        crowds = {name: Crowd(one.connect, streams, in_flight, _ROWS, one.durable) for name, one in protected.items()}
        for crowd in crowds.values():
            await crowd.open()
        told = {name: await crowd.scores(3) for name, crowd in crowds.items()}
        harness.require(
            all(np.array_equal(told[OFF], found, equal_nan=True) for found in told.values()), "all answer the same"
        )
        for crowd in crowds.values():
            await crowd.saturate(streams * (_FILL // 8 if short else _FILL))
        rows += await _shape(
            protected, crowds, folder, rounds, max(blocks, 2 * streams * in_flight), streams, in_flight
        )
        for crowd in crowds.values():
            await crowd.close()
    return rows


async def _shape(
    protected: dict[str, Protected],
    crowds: dict[str, Crowd],
    folder: Path,
    rounds: int,
    blocks: int,
    streams: int,
    in_flight: int,
) -> list[Row]:
    """Everyone in turn: readings a second, µs of CPU per reading, and of one block in flight what it takes."""
    per_s: dict[str, list[float]] = {name: [] for name in crowds}
    cpu: dict[str, list[float]] = {name: [] for name in crowds}
    trip: dict[str, list[float]] = {name: [] for name in crowds}
    syncs: list[float] = []
    for number in range(rounds):
        for name in crowds if number % 2 == 0 else reversed(crowds):
            began = protected[name].server.cpu_s()
            took, trips = await crowds[name].saturate(blocks)
            cpu[name].append((protected[name].server.cpu_s() - began) / (len(trips) * _ROWS) * 1e6)
            per_s[name].append(len(trips) * _ROWS / took)
            trip[name].append(float(np.median(trips)) * 1e3)
        syncs.append(_sync_ms(folder))
    case = f"{streams} stream{'s'[: streams > 1]} × {in_flight} in flight"
    rows = []
    for name in (one for one in crowds if one != OFF):
        rows.append(compared(f"{case}, {name}", "readings/s", per_s[name], OFF, per_s[OFF], more_is_better=True))
        rows.append(compared(f"{case}, {name}", "µs CPU/reading", cpu[name], OFF, cpu[OFF]))
    if in_flight == 1:
        least = [plain + sync for plain, sync in zip(trip[OFF], syncs, strict=True)]
        rows.append(
            compared(f"{case}, {DURABLE}, block to Ack", "ms", trip[DURABLE], f"{OFF} + one sync of this disk", least)
        )
    return rows


def _sync_ms(folder: Path, times: int = 40) -> float:
    """What this disk takes to make one block's bytes durable: the median of write and fdatasync."""
    block, found = os.urandom(_ROWS * 76), []
    handle = os.open(folder / "syncs", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for _ in range(times):
            began = time.perf_counter()
            os.write(handle, block)
            os.fdatasync(handle)
            found.append(time.perf_counter() - began)
    finally:
        os.close(handle)
    return float(np.median(found)) * 1e3


def _signatures(pack: Path, folder: Path, rounds: int) -> list[Row]:
    """A release is resolved, verified and mapped, with pinned keys and without."""
    private, public, _ = generate_keys(folder / "keys")
    registry = Registry(folder / "registry", signer=Signer.from_file(private))
    published = registry.publish(pack, who="bench", why="measure")
    trusted, expected = TrustedKeys.from_files([public]), open_pack(pack).sha256

    def load(pinned: TrustedKeys | None) -> float:
        began = time.perf_counter()
        release = Registry(registry.path, trusted=pinned).resolve("candidate")
        opened = open_pack(release.pack_path, kernels=KERNELS)
        took = time.perf_counter() - began
        harness.require((release.number, opened.sha256) == (published.number, expected), "the release loads")
        return took * 1e3

    found = harness.alternate({"pinned": lambda: load(trusted), "none": lambda: load(None)}, rounds)
    return [compared("load a release, signatures checked", "ms", found["pinned"], "not checked", found["none"])]


if __name__ == "__main__":
    harness.main("protection", __doc__ or "", measure)
