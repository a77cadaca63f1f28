"""What MLflow is told of a training run, by whom it is refused, and what happens where it is not there."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trips
from packs import small_content
from processes import Marked
from trainer.pumps import fleet, write_history
from wheeltapper.config import fleet_toml, parse_fleet
from wheeltapper.errors import Refused, UsageError
from wheeltapper.pack import Pack, open_pack, write_pack
from wheeltapper.registry import Registry
from wheeltapper.spec import ModelSpec, Target, digest
from wheeltapper_command.progress import Progress
from wheeltapper_trainer import verbs
from wheeltapper_trainer.mlflow_log import Tracker, params_of, places_of, record_of

UV = shutil.which("uv") or shutil.which(Path(__file__).parents[2] / ".tools" / "bin" / "uv")
SPLITS = [
    {"asset_class": "pump", "by": "time", "valid_from_us": 0, "test_from_us": 1_767_225_600_000_000,
     "valid_assets": [], "test_assets": []},
    {"asset_class": "fan", "by": "asset", "valid_from_us": 0, "test_from_us": 0,
     "valid_assets": ["fan-é"], "test_assets": []},
]  # fmt: skip
LINEAGE = {"data": "d" * 64, "config": "c" * 64, "split": SPLITS, "seed": 7, "versions": {"numpy": "2.4"}}
RESULT = {
    "release": 3, "fleet": "works", "assets": 3, "train_seconds": 1.5, "seconds": {"fit": 1.25}, "tuning": None,
    "quarantined": {}, "metrics": {"failures": 4, "lead_median_hours": None, "lead_hours": [1.0]}, "gates": [],
    "report": "/plant/report.html",
}  # fmt: skip
ENTRY = {
    "release": 3,
    "pack": "a" * 64,
    "gates": [{"passed": True}, {"passed": False}],
    "details": {"fleet_toml": "[fleet]\n"},
}


def small_pack() -> Pack:
    return Pack.from_bytes(write_pack(dataclasses.replace(small_content(), lineage=LINEAGE)))


def test_a_run_holds_the_parameters_the_cut_the_digests_and_the_figures() -> None:
    pack = small_pack()
    record = record_of(pack, ENTRY, {"classes": []}, RESULT, "<p>", {})
    assert record.name == "works release 3"
    assert {key: record.params[key] for key in ("seed", "pump/model/eta", "pump/windows", "fan/statistics")} == {
        "seed": "7",
        "pump/model/eta": str(ModelSpec().eta),
        "pump/windows": "[6]",
        "fan/statistics": '["min"]',
    }
    cuts = {key.split("/split/")[1]: value for key, value in record.params.items() if "/split/" in key}
    assert {"valid_from": "1970-01-01T00:00:00+00:00", "test_from": "2026-01-01T00:00:00+00:00"}.items() <= cuts.items()
    assert {"by": "asset", "valid_assets": "1", "test_assets": "0"}.items() <= cuts.items()
    assert record.metrics == {
        "pump/rul/rmse": 12.5, "totals/failures": 4.0, "run/assets": 3.0, "run/train_seconds": 1.5,
        "run/seconds/fit": 1.25,
    }  # fmt: skip
    assert record.tags == {
        "wheeltapper.fleet": "works", "wheeltapper.release": "3", "wheeltapper.gates": "failed",
        "wheeltapper.pack": "a" * 64, "wheeltapper.pack_bytes": str(pack.size_bytes),
        "wheeltapper.data": "d" * 64, "wheeltapper.config": "c" * 64, "wheeltapper.version.numpy": "2.4",
    }  # fmt: skip
    assert record.files["fleet.toml"] == "[fleet]\n"
    assert "report" not in json.loads(record.files["training.json"])


def test_names_are_those_that_every_server_takes() -> None:
    content = small_content()
    pump = content.classes[0]
    outputs = (dataclasses.replace(pump.outputs[0], metrics={"pr_auc": 0.5, "unknown": None}), *pump.outputs[1:])
    classes = (dataclasses.replace(pump, outputs=outputs), *content.classes[1:])
    pack = Pack.from_bytes(write_pack(dataclasses.replace(content, classes=classes, lineage=LINEAGE)))
    metrics = record_of(pack, ENTRY, {}, RESULT, "", {}).metrics
    assert metrics["pump/failure.seal/pr_auc"] == 0.5
    assert not [key for key in metrics if "unknown" in key]
    assert not [key for key in (*metrics, *params_of(pack)) if ":" in key]


def test_no_place_of_this_machine_is_told(tmp_path: Path) -> None:
    history = f"{tmp_path}/a & b"
    places = places_of(history, tmp_path / "run", tmp_path / "registry")
    result = {**RESULT, "quarantined": {"pump-1": f'{history}/readings/0.parquet: "cut", {tmp_path}/run/x'}}
    page = f"<td>{history.replace('&', '&amp;')}/readings/0.parquet</td> {Path.home()}/x"
    record = record_of(small_pack(), ENTRY, {"seen": [history]}, result, page, places)
    assert record.files["report.html"] == "<td>HISTORY/readings/0.parquet</td> ~/x"
    assert record.files["quarantined.csv"] == 'asset,reason\npump-1,"HISTORY/readings/0.parquet: ""cut"", RUN/x"\n'
    assert not [name for name, text in record.files.items() if str(tmp_path) in text or str(Path.home()) in text]


@pytest.mark.parametrize(
    "uri", ["localhost:5000", "http://", "sqlite:///runs.db", "http://host:port", "http://[::1", "/srv/mlruns"]
)
def test_what_is_no_address_of_a_server_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError, match="expected http://"):
        Tracker(uri)


def test_a_password_does_not_belong_into_the_address() -> None:
    with pytest.raises(UsageError, match="without a name and password") as found:
        Tracker("http://me:secret@127.0.0.1:5000")
    assert "secret" not in f"{found.value} {found.value.hint}"


def test_without_its_client_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="not installed") as found:
        Tracker("http://127.0.0.1:5000")
    assert "wheeltapper-trainer[mlflow]" in found.value.hint


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def options_of(folder: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verbs.train.arguments(parser)
    places = ("--history", str(folder / "history"), "--registry", str(folder / "registry"))
    return parser.parse_args([str(folder / "fleet.toml"), *places, *words])


def test_a_server_that_is_not_there_is_known_before_any_work(tmp_path: Path) -> None:
    options = options_of(tmp_path, "--mlflow", f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(Refused, match="expected an MLflow server") as found:  # and not that there is no fleet.toml
        verbs.train.run(options, Progress(quiet=True))
    assert time.monotonic() - began < 120, "its own eight tries take far longer"
    assert "nothing was trained" in found.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(Refused, match="expected an MLflow server"):
            Tracker(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - began < 120, "its own eight tries take far longer"


class _Other(BaseHTTPRequestHandler):
    """A web server of somebody else's, which answers everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>It works</h1>")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_another_server_is_told_from_mlflow() -> None:
    with HTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Refused, match="expected an MLflow server"):
            Tracker(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_an_experiment_without_a_server_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected --mlflow URI"):
        verbs.train.run(options_of(tmp_path, "--mlflow-experiment", "pumps"), Progress(quiet=True))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Marked]]:
    """A real MLflow server of the client's version, in an environment of its own as in a plant; no part of ours."""
    if UV is None:
        pytest.skip("needs uv, which brings MLflow's server: `make faults` has it")
    port, wanted = free_port(), f"mlflow=={version('mlflow-skinny')}"
    folder = tmp_path / "mlflow"
    folder.mkdir()
    process = Marked(
        f"mlflow {tmp_path}",
        command=[
            UV, "tool", "run", "--isolated", "--from", wanted, "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/runs.db",
            "--artifacts-destination", str(folder / "artifacts"),
        ],
        environment={"MLFLOW_DISABLE_TELEMETRY": "true"},
        log=tmp_path / "mlflow.log",
    )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    try:
        process.wait_until(lambda: _answers(f"{uri}/health"), 200)
        yield uri, process
    finally:
        process.sweep()
        process.process.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_server_has_the_run_and_its_end_costs_no_release(server: tuple[str, Marked], tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri, process = server
    targets = (Target("failure", "failure:bearing", "bearing", horizon_us=48 * 3_600_000_000),)
    spec = fleet(targets=targets, model=ModelSpec(rounds=10, asset_rounds=3, max_depth=2))
    history = write_history(tmp_path / "history", assets=4)
    (tmp_path / "fleet.toml").write_text(fleet_toml(spec))
    words = ["train", tmp_path / "fleet.toml", "--history", history, "--registry", tmp_path / "registry"]
    words += ["--cpus", 2, "--resume", "--mlflow", uri, "--mlflow-experiment", "pumps of a test"]
    trained = trips.wheeltapper(*words)

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("pumps of a test")
    (run,) = client.search_runs([experiment.experiment_id])
    release = Registry(tmp_path / "registry").release(trained["release"])
    pack = open_pack(release.pack_path)
    assert (run.info.run_id, run.info.status) == (trained["mlflow"]["run"], "FINISHED")
    assert run.data.params == params_of(pack)
    assert run.data.tags["wheeltapper.pack"] == release.sha256
    assert run.data.tags["wheeltapper.data"] == pack.lineage["data"]
    assert run.data.tags["wheeltapper.version.xgboost"] == pack.lineage["versions"]["xgboost"]
    (output,) = pack.classes[0].outputs
    figures = {name: value for name, value in output.metrics.items() if value is not None}
    assert figures
    assert {name: run.data.metrics[f"pump/failure.bearing/{name}"] for name in figures} == pytest.approx(figures)
    assert run.data.metrics["run/heads_kept"] == trained["heads_kept"]
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {"fleet.toml", "evaluation.json", "training.json", "quarantined.csv", "report.html"}
    folder = tmp_path / "logged"
    folder.mkdir()
    texts = {name: Path(client.download_artifacts(run.info.run_id, name, str(folder))).read_text() for name in names}
    assert not [name for name, text in texts.items() if str(tmp_path) in text]
    assert json.loads(texts["evaluation.json"])["totals"] == trained["metrics"]
    # The release alone says what was trained, and the same comes out of it again.
    kept = release.entry.document["details"]["fleet_toml"]
    assert texts["fleet.toml"] == kept
    assert digest(parse_fleet(kept)) == pack.lineage["config"]

    second = Marked(f"train {tmp_path}", *words)
    try:
        second.wait_until(lambda: bool(second.alive("raylet")))  # the server was asked; the work goes on
        process.sweep()
        out, log = second.process.communicate(timeout=200)
    finally:
        second.sweep()
    assert second.process.returncode == 0, log
    again = json.loads(out)
    assert again["release"] == 2
    assert again["pack"] == release.sha256
    assert "run" not in again["mlflow"]
    assert "onnection" in again["mlflow"]["error"]
