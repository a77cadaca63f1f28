"""The GPU's block path: its launches under Numba's simulator, its refusals, and the look at what was compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from presses import content
from wheeltapper import cuda
from wheeltapper.cuda_fleet import CudaFleet
from wheeltapper.errors import Refused
from wheeltapper.pack import Pack, write_pack


def test_under_the_simulator_every_answer_is_the_cpus() -> None:
    checks = Path(__file__).with_name("simulated_cuda.py")
    line = [sys.executable, "-m", "pytest", "-x", str(checks)]
    done = subprocess.run(
        line, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("......")


def test_without_a_gpu_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda.cuda, "is_available", lambda: False)
    with pytest.raises(Refused, match="expected an NVIDIA GPU") as refusal:
        CudaFleet(Pack.from_bytes(write_pack(content(5))), 1)
    assert "--device cpu" in str(refusal.value.hint)


def test_contracted_or_approximate_instructions_are_found() -> None:
    plain = "add.rn.f64 %a; mul.rn.f32 %b; div.rn.f64 %c; sqrt.rn.f64 %d; fma_step: add.s64 %e; mad.lo.s32 %f;"
    assert not cuda.loose_arithmetic([plain])
    for wrong in (
        "fma.rn.f64",
        "fma.rn.f32",
        "mul.f64",
        "add.f32",
        "mul.rn.ftz.f32",
        "div.approx.f32",
        "sqrt.approx.f32",
    ):
        assert cuda.loose_arithmetic([f"{plain}\n\t{wrong} %g, %h;"]), wrong


def test_the_benchmark_is_ready_for_a_gpu_and_refuses_without_one() -> None:
    root = Path(__file__).parents[2]
    line = [sys.executable, "-m", "benchmarks.gpu", "-o", "json"]
    for simulated, code in (("1", 0), ("0", 1)):
        environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": simulated, "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == code, done.stderr
        if code:
            assert done.stderr.startswith("benchmarks.gpu: device cuda: expected an NVIDIA GPU")
        else:
            assert "block in which the GPU beats one core" in done.stdout
