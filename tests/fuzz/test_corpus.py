"""The short run: good inputs, everything fuzzing ever found, and seeded mutations of both; no atheris needed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz.targets import TARGETS, seeds

CORPUS = Path(__file__).parent / "corpus"
MUTATIONS = {"spool": 15, "pack": 60, "fleet_toml": 120}  # the others take a millisecond each
INTERESTING = (
    b"\x00",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80" * 9 + b"\x01",
    b"[" * 40,
    b'"',
    b"\n",
    b"nan",
    b"1e999",
)


def mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1:
                changed[at:at] = rng.choice(INTERESTING)
            case 2:
                del changed[at : at + rng.randint(1, 16)]
            case _:
                changed[at:at] = changed[rng.randrange(len(changed) + 1) :][: rng.randint(1, 32)]
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_do_what_the_reader_does_not_promise(name: str) -> None:
    target, begin = TARGETS[name], seeds(name)
    found = [path.read_bytes() for path in sorted((CORPUS / name).glob("*")) if path.is_file()]
    for data in begin + found:
        target(data)
    rng = random.Random(name)
    for _ in range(MUTATIONS.get(name, 400)):
        target(mutated(rng, rng.choice(begin + found)))
