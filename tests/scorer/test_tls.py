"""The real server behind TLS: who gets in, who may send what, and certificates that change while streams are open."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from serving import MINUTE_US, Running, ask, block, now_us, opening, reason, run_server
from wheeltapper.registry import Registry
from wheeltapper_command.main import main
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.certs import make_certificates

SERVICES = (pb.DESCRIPTOR.services_by_name["Scoring"], health_pb2.DESCRIPTOR.services_by_name["Health"])
SERVING = health_pb2.HealthCheckResponse.SERVING
METHODS = [(service, method) for service in SERVICES for method in service.methods]
GRANTS = """
[[grant]]
identity = "gw-1"
assets = ["a-*"]
"""


@dataclass
class Site:
    """A server that asks for certificates, and the certificates around it."""

    certs: Path
    grants: Path
    server: Running

    def channel(self, name: str = "", folder: Path | None = None) -> grpc.Channel:
        """A connection of its own with the certificate `name` ("": none)."""
        own = folder or self.certs
        pair = [(own / f"{name}{end}").read_bytes() for end in (".key", ".pem")] if name else [None, None]
        credentials = grpc.ssl_channel_credentials((self.certs / "ca.pem").read_bytes(), *pair)
        port = self.server.address.rpartition(":")[2]
        return grpc.secure_channel(f"localhost:{port}", credentials, [("grpc.use_local_subchannel_pool", 1)])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, packs: dict[str, bytes]) -> Iterator[Site]:
    tmp_path = tmp_path_factory.mktemp("site")
    registry = Registry(tmp_path / "registry")
    registry.publish(packs["first"], who="a test", why="first")
    registry.promote(1, "production", who="a test", why="first", override="a test")
    certs, grants = tmp_path / "certs", tmp_path / "grants.toml"
    make_certificates(certs, ["localhost", "gw-1", "stranger"], days=1)
    make_certificates(certs, ["expired"], days=1e-9)
    make_certificates(tmp_path / "foreign", ["gw-1"], days=1)
    grants.write_text(GRANTS)
    words = ["--tls-cert", certs / "localhost.pem", "--tls-key", certs / "localhost.key", "--client-ca",
             certs / "ca.pem", "--grants", grants]  # fmt: skip
    with run_server(registry.path, *map(str, words)) as server:
        yield Site(certs, grants, server)


def say(channel: grpc.Channel, service, method, timeout: float = 10) -> None:
    """Call any method with an empty message, whatever its kind."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(channel, kind)(f"/{service.full_name}/{method.name}")
    answer = call(iter([b""]) if method.client_streaming else b"", timeout=timeout)
    if method.server_streaming:
        next(answer, None)


@pytest.mark.parametrize(("service", "method"), METHODS, ids=lambda one: one.name)
def test_no_method_answers_whom_the_authority_does_not_know(site: Site, service, method) -> None:
    """Generated from the descriptors: a method that is added is tested by being there."""
    for name, folder in (("", None), ("gw-1", site.certs.parent / "foreign"), ("expired", None)):
        with site.channel(name, folder) as channel, pytest.raises(grpc.RpcError) as caught:
            say(channel, service, method)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, (name, caught.value)
    with grpc.insecure_channel(site.server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        say(channel, service, method)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(("service", "method"), METHODS, ids=lambda one: one.name)
def test_who_has_no_grant_hears_nothing_but_the_server_s_health(site: Site, service, method) -> None:
    with site.channel("stranger") as channel:
        if service.name == "Health":
            if method.name != "List":  # which grpc's servicer has not
                say(channel, service, method)
            return
        with pytest.raises(grpc.RpcError) as caught:
            say(channel, service, method)
        assert reason(caught.value)[:2] == (grpc.StatusCode.PERMISSION_DENIED, "NOT_GRANTED")


def test_a_gateway_sends_its_own_assets_only(site: Site) -> None:
    readings = block(1, [0], [now_us()], (1, 2, 3))
    with site.channel("gw-1") as channel:
        answers = ask(channel, opening("a-1", gateway="gw-1"), readings, opening("a-2", gateway=""))
        assert [answer.WhichOneof("body") for answer in answers] == ["opened", "scores", "opened"]
        for wrong in (
            [opening("b-1", gateway="gw-1")],
            [opening("a-1", gateway="gw-2")],
            [opening("a-1", gateway="gw-1"), opening("b-1", gateway="gw-1")],
        ):
            with pytest.raises(grpc.RpcError) as caught:
                ask(channel, *wrong)
            assert reason(caught.value)[:2] == (grpc.StatusCode.PERMISSION_DENIED, "NOT_GRANTED")
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        assert check(health_pb2.HealthCheckRequest(service="asset:press/a-1"), timeout=10).status == SERVING
        for unknown in ("asset:press/a-9", "asset:press/b-1", "asset:lathe/a-1", "asset:"):
            with pytest.raises(grpc.RpcError) as caught:
                check(health_pb2.HealthCheckRequest(service=unknown), timeout=10)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_gateway_replays_over_tls(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way with the command line: certified, granted, scored; refused for another's assets."""
    history = tmp_path / "history"
    (history / "readings").mkdir(parents=True)
    for asset in ("a-1", "b-1"):
        rows = "".join(f"{asset},2026-05-01T00:{minute:02}:00Z,1,2,3\n" for minute in range(9))
        (history / "readings" / "one.csv").write_text(f"asset_id,time,force,heat,oil\n{rows}")
        (history / "assets.csv").write_text(f"asset_id,asset_class\n{asset},press\n")
        port = site.server.address.rpartition(":")[2]
        words = ["replay", history, "--to", f"localhost:{port}", "--out", tmp_path / "out.csv", "--tls-ca",
                 site.certs / "ca.pem", "--tls-cert", site.certs / "gw-1.pem", "--tls-key", site.certs / "gw-1.key",
                 "--patience", "5s"]  # fmt: skip
        assert main([*map(str, words), "--gateway", "other"]) == 5
        assert main([*map(str, words), "--gateway", "gw-1"]) == (0 if asset == "a-1" else 5)
    assert "may not send asset 'b-1'" in capsys.readouterr().err
    assert main([*map(str, words[:6]), "--tls-cert", "x", "--tls-key", "y"]) == 2


def test_certificates_and_grants_change_while_a_stream_is_open(site: Site) -> None:
    from conversation import Conversation

    with site.channel("gw-1") as channel:
        stream = Conversation(channel)
        stream.ask(opening("a-5", gateway="gw-1"))
        before = fingerprint(site)
        (site.certs / "localhost.pem").write_bytes((site.certs / "gw-1.pem").read_bytes())  # not the key's
        assert fingerprint(site) == before
        assert site.server.wait_for("certificates not renewed")["level"] == "warning"
        make_certificates(site.certs, ["localhost"], days=1, renew=True)
        assert fingerprint(site) != before
        for i in range(3):
            answer = stream.ask(block(i, [0], [now_us() - (9 - i) * MINUTE_US], (1, 2, 3)))
            assert len(answer.scores.status) == 1
        with site.channel("gw-1") as another:
            assert ask(another, opening("a-6", gateway="gw-1"))[0].opened.release == 1
        replaced = site.grants.with_suffix(".new")
        replaced.write_text("nonsense")
        replaced.replace(site.grants)
        site.server.wait_for("grants not renewed")
        stream.ask(block(5, [0], [now_us()], (1, 2, 3)))
        replaced.write_text(GRANTS.replace("a-*", "b-*"))
        replaced.replace(site.grants)
        site.server.wait_for("grants renewed")
        with pytest.raises(grpc.RpcError) as caught:
            stream.ask(block(6, [0], [now_us()], (1, 2, 3)))
        assert reason(caught.value)[1] == "NOT_GRANTED"
        site.grants.write_text(GRANTS)


def fingerprint(site: Site) -> bytes:
    """The certificate that a new handshake is shown."""
    import socket
    import ssl

    context = ssl.create_default_context(cafile=str(site.certs / "ca.pem"))
    context.load_cert_chain(site.certs / "gw-1.pem", site.certs / "gw-1.key")
    context.set_alpn_protocols(["h2"])
    port = int(site.server.address.rpartition(":")[2])
    plain = socket.create_connection(("localhost", port), timeout=5)
    with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
        shown = wrapped.getpeercert(binary_form=True)
        assert shown is not None
        return shown


def test_no_secret_reaches_a_log(site: Site) -> None:
    """Last in this module: everything the tests above made the server say."""
    site.server.process.send_signal(signal.SIGTERM)
    site.server.process.wait(20)
    deadline = time.monotonic() + 5
    while "stopped" not in site.server.events():
        assert time.monotonic() < deadline
    logged = site.server.log.read_bytes()
    for key in site.certs.glob("*.key"):
        for line in key.read_bytes().splitlines()[1:-1]:
            assert line not in logged
    assert b"PRIVATE KEY" not in logged


def test_certs_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["certs", str(tmp_path / "c"), "--name", "localhost", "--name", "spiffe://plant/gw-1"]
    assert main(words) == 0
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == ["ca.key", "ca.pem", "gw-1.key", "gw-1.pem", "localhost.key", "localhost.pem"]
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "c").glob("*.key")} == {"0o600"}
    assert main(words) == 5
    assert main([*words, "--renew"]) == 0
    assert main(["certs", str(tmp_path / "c"), "--name", "ca"]) == 2
    assert main(["certs", str(tmp_path / "c"), "--name", "///"]) == 2
    assert main(["certs", str(tmp_path / "d"), "--days", "0"]) == 2
    told = capsys.readouterr()
    assert "PRIVATE" not in told.out + told.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--tls-cert", "x"], 2, "--tls-cert and --tls-key together"),
        (["--client-ca", "x"], 2, "--client-ca only with them"),
        (["--grants", "x"], 2, "names come from certificates"),
        (["--tls-cert", "none.pem", "--tls-key", "none.key"], 4, "no file at none.pem"),
        (["--tls-cert", "{c}/gw-1.pem", "--tls-key", "{c}/localhost.key"], 2, "expected a PEM certificate"),
        (["--tls-cert", "{c}/ca.key", "--tls-key", "{c}/ca.key"], 2, "expected a PEM certificate"),
        (["--tls-cert", "{c}/gw-1.pem", "--tls-key", "{c}/gw-1.pem"], 5, "only its owner may read"),
        (["--tls-cert", "{c}/gw-1.pem", "--tls-key", "{c}/gw-1.key", "--listen", "0.0.0.0:0"], 5, "lets everybody"),
        (["--metrics", "0.0.0.0:0"], 5, "reachable from other machines"),
    ],
)
def test_a_server_that_may_not_begin_so_says_why(
    tmp_path: Path, registry: Registry, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    from serving import begin

    make_certificates(tmp_path / "c", ["localhost", "gw-1"], days=1)
    assert begin(registry, *(word.format(c=tmp_path / "c") for word in words)) == code
    told = capsys.readouterr().err
    assert says in told
    assert "PRIVATE" not in told
