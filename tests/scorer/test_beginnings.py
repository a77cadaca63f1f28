"""A server that cannot begin says why, and ends."""

from __future__ import annotations

import json
import socket

import pytest
from serving import begin


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--listen", "0.0.0.0:0"], 5, "reachable from other machines"),
        (["--listen", "nowhere"], 2, "expected HOST:PORT"),
        (["--stage", "qa"], 4, "holds no release"),
        (["--rows-max", "0"], 2, "rows_max: expected at least 1"),
        (["--drain-seconds", "60"], 2, "drain_s"),
        (["--ready-file", "/nowhere/at/all"], 2, "--ready-file"),
        (["--registry", "nowhere"], 4, "nowhere"),
    ],
)
def test_a_server_that_cannot_begin_says_why(registry, capsys, words, code, says):
    assert begin(registry, *words) == code
    told = capsys.readouterr()
    assert says in told.err
    assert "Traceback" not in told.err
    assert json.loads(told.out)["exit_code"] == code


def test_two_servers_cannot_share_a_port(registry, capsys):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as holder:  # as gRPC opens a port unless told not to
        assert begin(registry, "--listen", f"127.0.0.1:{holder.getsockname()[1]}") == 1
    assert "cannot listen on" in capsys.readouterr().err
