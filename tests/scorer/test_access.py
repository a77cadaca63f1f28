"""Who may speak: grants by certified name, from a file that may be wrong, at Open and with every message."""

from __future__ import annotations

from pathlib import Path

import pytest
from wheeltapper.errors import NotFound, UsageError
from wheeltapper_proto import scoring_pb2 as pb
from wheeltapper_scorer.access import Access, Caller, identities, read_grants
from wheeltapper_scorer.faults import CallError, Reason

GRANTS = """
[[grant]]
identity = "spiffe://plant/gw-1"
gateways = ["plant-1"]
classes = ["press", "pump"]
assets = ["a-*", "b-7"]

[[grant]]
identity = "gw-2"
assets = ["*"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grants.toml"
    path.write_text(text)
    return path


def certified(**names: str) -> dict[str, list[bytes]]:
    """An AuthContext as grpc gives it after a TLS handshake with a certificate of these names."""
    return {"transport_security_type": [b"ssl"], **{kind: [name.encode()] for kind, name in names.items()}}


def opening(*assets: str, gateway: str = "plant-1", asset_class: str = "press") -> pb.Open:
    return pb.Open(gateway=gateway, asset_class=asset_class, asset_ids=assets)


def caller(access: Access, **names: str) -> Caller:
    return access.caller(certified(**names))


def refused(work: object, *arguments: object) -> str:
    with pytest.raises(CallError) as caught:
        work(*arguments)  # type: ignore[operator]
    assert caught.value.reason is Reason.NOT_GRANTED
    return str(caught.value)


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return Access(True, read_grants(written(tmp_path, GRANTS)))


def test_a_gateway_may_send_its_own_assets_only(access: Access) -> None:
    one = caller(access, peer_uri="spiffe://plant/gw-1")
    one.check_open(opening("a-1", "a-999", "b-7"))
    one.check_open(pb.Open(asset_ids=["a-2"]))  # a later Open may leave the names out
    assert "'b-8'" in refused(one.check_open, opening("a-1", "b-8"))
    assert "'b-70'" in refused(one.check_open, pb.Open(asset_ids=["b-70"]))
    assert "'lathe'" in refused(one.check_open, opening(asset_class="lathe"))
    assert "'plant-2'" in refused(one.check_open, opening(gateway="plant-2"))
    assert "'plant-1x/press'" in refused(one.check_open, opening(gateway="plant-1x/press"))
    caller(access, peer_uri="spiffe://plant/gw-1").check_open(opening("a-1", gateway="plant-1/press"))
    caller(access, peer_dns="gw-2").check_open(opening("anything", gateway="gw-2", asset_class="any"))
    refused(caller(access, peer_dns="gw-2").check_open, opening("anything"))  # only under its own name


def test_nothing_is_granted_to_strangers(access: Access) -> None:
    for names in ({"peer_dns": "gw-3"}, {"x509_common_name": "gw-3"}, {"peer_dns": "GW-2"}, {}):
        refused(access.caller, certified(**names))
    refused(access.caller, {"peer_dns": [b"gw-2"]})  # no handshake, whatever else is said
    one = caller(access, peer_dns="gw-2", x509_common_name="spiffe://plant/gw-1")
    refused(one.check_open, opening("a-1"))  # a common name beside other names is nobody's


def test_new_grants_count_for_open_streams(access: Access, tmp_path: Path) -> None:
    one = caller(access, peer_uri="spiffe://plant/gw-1")
    one.check_open(opening("a-1"))
    one.check_open(opening("b-7"))
    one.check()
    access.replace(read_grants(written(tmp_path, GRANTS.replace('"b-7"', '"b-6"'))))
    assert "'b-7'" in refused(one.check)
    access.replace({})
    refused(caller(Access(True, None), peer_dns="x").check_open, opening(gateway="y"))


def test_without_grants_everybody_certified_speaks_under_its_own_name() -> None:
    access = Access(True, None)
    caller(access, x509_common_name="gw").check_open(opening("anything", gateway="gw"))
    refused(caller(access, x509_common_name="gw").check_open, opening("anything"))
    refused(access.caller, certified())
    Access().caller({}).check_open(opening("anything"))  # plaintext on loopback: nobody is asked


def test_identities_come_from_the_handshake() -> None:
    both = certified(peer_uri="spiffe://p/1", peer_dns="gw", x509_common_name="cn")
    assert identities(both) == ("spiffe://p/1", "gw")
    assert identities(certified(x509_common_name="cn")) == ("cn",)
    assert identities({"transport_security_type": [b"insecure"], "peer_dns": [b"gw"]}) == ()
    assert identities({}) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[grant]]\n", "number 1: expected identity"),
        ('[[grant]]\nidentity = "x"\n', "expected assets as a list"),
        ('[[grant]]\nidentity = "x"\nassets = []\n', "found []"),
        ('[[grant]]\nidentity = "x"\nassets = "*"\n', "found '*'"),
        ('[[grant]]\nidentity = "x"\nassets = [""]\n', "found ['']"),
        ('[[grant]]\nidentity = "x"\nasset = ["*"]\n', "found ['asset']"),
        ('[[grants]]\nidentity = "x"\n', "found ['grants']"),
        ("grant = 1\n", "nothing but [[grant]]"),
        ("not toml", "expected TOML"),
        ("a = " + "[" * 5000, "expected TOML"),
    ],
)
def test_a_wrong_file_is_refused_and_says_where(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_grants(written(tmp_path, text))
    assert says in str(caught.value)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_grants(tmp_path / "none.toml")
