"""The stages on a small fleet: nothing from the future or the chunking, and a broken asset costs only itself."""

import dataclasses
import json

import numpy as np
import pytest
from trainer.pumps import BUDGET, HOUR, START, fleet, write_history
from wheeltapper.forest import margins
from wheeltapper.outputs import Why
from wheeltapper.pack import Pack, write_pack
from wheeltapper.spec import LEVELS, SplitSpec
from wheeltapper_trainer import own
from wheeltapper_trainer.assemble import assemble, sketch_of
from wheeltapper_trainer.chunk import fit_class, load_samples, sample_chunk, train_chunk, worth_of
from wheeltapper_trainer.evaluation import evaluate, flat_metrics
from wheeltapper_trainer.heads import load_head
from wheeltapper_trainer.history import History
from wheeltapper_trainer.inputs import Reader, asset_rows
from wheeltapper_trainer.job import (
    TEST,
    TRAIN,
    VALID,
    Chunk,
    TrainJob,
    job_from_json,
    job_to_json,
    load_arrays,
    slots_of,
)
from wheeltapper_trainer.records import AssetReadings, Events
from wheeltapper_trainer.regimes import learn_regimes, load_regimes
from wheeltapper_trainer.scores import load_scores
from wheeltapper_trainer.split import resolve_split
from wheeltapper_trainer.thresholds import choose_thresholds


def job_of(history, run_dir, spec=None, **changes):
    spec = spec or fleet()
    opened = History.open(history)
    return TrainJob(str(history), str(run_dir), spec, resolve_split(opened, spec), (("pump", 8),), 7, **changes)


def run(job, sizes):
    ids, chunks, at = tuple(f"pump-{n}" for n in range(8)), [], 0
    for size in sizes:
        chunks.append(Chunk("pump", ids[at : at + size], 0, f"c{at}"))
        at += size
    learn_regimes(job, "pump")
    for chunk in chunks:
        sample_chunk(job, chunk)
    for slot in slots_of(job.spec.classes[0]):
        fit_class(job, "pump", slot.index, chunks)
    done = [train_chunk(job, chunk) for chunk in chunks]
    return chunks, done


def pack_of(job, chunks):
    return write_pack(assemble(job, chunks, chunks, choose_thresholds(job, chunks), {"data": "none"}))


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return write_history(tmp_path_factory.mktemp("chunk") / "history")


@pytest.fixture(scope="module")
def trained(history, tmp_path_factory):
    job = job_of(history, tmp_path_factory.mktemp("run"))
    chunks, done = run(job, [8])
    return job, chunks, done


def test_a_job_survives_json(trained):
    job = trained[0]
    assert job_from_json(json.loads(json.dumps(job_to_json(job)))) == job


def test_a_poisoned_future_changes_nothing_that_was_learnt(trained, history, tmp_path):
    """Everything after the cut is shifted: samples and class heads of the past must not notice."""
    job, chunks, _ = trained
    cut = (job.splits[0].test_from_us - START) // HOUR
    poisoned = write_history(tmp_path / "poisoned", future=(int(cut), 1000.0))
    other = job_of(poisoned, tmp_path / "run")
    assert other.splits == job.splits
    run(other, [8])
    for ours, theirs in zip(_learnt(job, chunks), _learnt(other, chunks), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_pack_says_how_much_training_reached_each_node(trained):
    """Also of heads that went through a chunk's file: what reaches a split reaches one of its children."""
    job, chunks, _ = trained
    pack = Pack.from_bytes(pack_of(job, chunks))
    nodes, cover = pack.forest.nodes, pack.forest.node_cover
    assert (pack.head_level == LEVELS.index("asset")).any()
    splits = 0
    for root, end in zip(pack.forest.tree_begin, pack.forest.tree_begin[1:], strict=False):
        inner = np.flatnonzero(nodes["left"][root:end] != np.arange(end - root))
        left = root + nodes["left"][root:end][inner].astype(np.int64)
        np.testing.assert_allclose(cover[left] + cover[left + 1], cover[root + inner], rtol=1e-3)
        splits += len(inner)
    assert splits > 100


def _learnt(job, chunks):
    sample = load_samples(job, "pump", chunks)
    asset = load_arrays(job.chunk_path(chunks[0]))
    heads = [load_arrays(job.class_path("pump", slot)) for slot in range(4)]
    return [
        sample["features"],
        sample["labels"],
        sample["weight"],
        *(head["final"] for head in heads),
        *(head["scale"] for head in heads),
        asset["nodes"],
        asset["head_scale"],
        asset["reasons"],
        asset["losses"],
    ]


@pytest.mark.parametrize("asset_id", ["pump-1", "pump-4"])
def test_the_past_is_the_same_whatever_came_later(trained, history, asset_id):
    """Cut an asset's history anywhere: features before the cut are equal in every bit, and labels known then stay."""
    job = trained[0]
    opened = History.open(history)
    asset = next(a for a in opened.assets() if a.asset_id == asset_id)
    readings = next(opened.read([asset_id], ["load", "vibration", "temperature"]))
    events = opened.events().of_asset(asset_id)
    regimes = load_regimes(job, "pump")

    def rows(cut):
        seen = AssetReadings(asset_id, readings.times[:cut], readings.values[:cut])
        known = events.times <= readings.times[cut - 1]
        then = Events(events.asset_ids[known], events.times[known], events.kinds[known], events.codes[known])
        return asset_rows(job, job.spec.classes[0], regimes, asset, seen, then, frozenset({"bearing"}))

    whole = rows(len(readings.times))
    for cut in (5, 100, 333, 1000, 1777):
        part = rows(cut)
        np.testing.assert_array_equal(part.features.view(np.uint32), whole.features[:cut].view(np.uint32))
        settled = np.isfinite(part.labels)
        np.testing.assert_array_equal(part.labels[settled], whole.labels[:cut][settled])


def test_training_labels_end_before_validation_begins(trained):
    """The truth of a training row is settled before the cut: dropping every later event leaves it as it is."""
    job, _, _ = trained
    reader = Reader(job, "pump")
    rows = reader.rows("pump-1")
    for output in range(3):
        train = rows.parts[:, output] == TRAIN
        horizon = (120 if output == 0 else 48) * HOUR
        assert (rows.times[train] + horizon < job.splits[0].valid_from_us).all()


def test_chunking_changes_no_byte(trained, history, tmp_path):
    job, chunks, _ = trained
    other = job_of(history, tmp_path / "run")
    pieces, _ = run(other, [1, 4, 3])
    assert pack_of(job, chunks) == pack_of(other, pieces)


def test_samples_keep_every_row_before_a_failure_and_weigh_the_rest(history, tmp_path):
    job = job_of(history, tmp_path / "run", class_rows=8 * 100)
    chunk = Chunk("pump", ("pump-1",), 0, "one")
    learn_regimes(job, "pump")
    done = sample_chunk(job, chunk)
    sample = load_samples(job, "pump", [chunk])
    rows = Reader(job, "pump").rows("pump-1")
    usable = ((rows.parts == TRAIN) | (rows.parts == VALID)).any(axis=1)
    urgent = usable & (rows.labels[:, 1] == 1)
    assert done.rows_kept == 100 + min(200, urgent.sum())
    assert sample["weight"].sum() == pytest.approx(usable.sum())
    assert (sample["labels"][:, 1] == 1).sum() == min(200, urgent.sum())


def test_whole_machines_held_out_are_scored_by_who_has_not_seen_them(history, tmp_path):
    spec = dataclasses.replace(fleet(), split=SplitSpec(by="asset", test_share=0.25))
    job = job_of(history, tmp_path / "run", spec)
    chunks, _ = run(job, [8])
    head = load_head(job.class_path("pump", 0))
    scores = load_scores(job, "pump", chunks)
    for part, model in ((job.splits[0].valid_assets, head.judge), (job.splits[0].test_assets, head.final)):
        asset = scores.asset_ids.tolist().index(part[0])
        answered = scores.values[scores.begin[asset] : scores.begin[asset + 1], 0]
        said = np.clip(model.margins(Reader(job, "pump").rows(part[0]).features), 0, 120)
        np.testing.assert_array_equal(answered, said)
    assert head.judge is not head.final
    assert head.interval
    metrics = Pack.from_bytes(pack_of(job, chunks)).classes[0].outputs[0].metrics
    assert metrics["interval"] == head.interval


def test_lives_at_the_cap_count_half():
    rul, failure = slots_of(fleet().classes[0])[:2]
    label = np.array([3, 119.9, 120, np.nan], np.float32)
    assert worth_of(rul, label).tolist() == [1, 1, 0.5, 1]
    assert worth_of(failure, np.array([0, 1, 120], np.float32)).tolist() == [1, 1, 1]


def test_own_heads_catch_what_sets_a_machine_apart(trained):
    """Each pump vibrates on a level of its own, so its own normal behaviour is nearer than its class's."""
    job, chunks, done = trained
    assert done[0].failed == ()
    found = load_arrays(job.chunk_path(chunks[0]))
    vibration = [slot.name for slot in slots_of(job.spec.classes[0])].index("anomaly[vibration]")
    assert (found["reasons"][:, vibration] == Why.OWN_HEAD_KEPT).sum() >= 6
    losses = found["losses"][:, vibration]
    assert np.median(losses[:, 1] / losses[:, 0]) < 0.7
    assert found["tried"][:, vibration].all()
    assert set(found["reasons"][[0, 4], 1].tolist()) == {Why.NO_EVENTS}  # pumps that never failed


def test_a_pack_scores_what_training_scored(trained):
    job, chunks, _ = trained
    pack = Pack.from_bytes(pack_of(job, chunks))
    found = load_arrays(job.chunk_path(chunks[0]))
    asset = int(found["head_asset"][0])
    slot = int(found["head_slot"][0])
    reader = Reader(job, "pump")
    rows = reader.rows(str(found["asset_ids"][asset]))
    later = ((rows.parts == VALID) | (rows.parts == TEST)).any(axis=1)
    head = pack.asset_heads[pack.asset_index(rows.asset_id), slot]
    assert pack.head_level[head] == LEVELS.index("asset")
    walked = margins(pack.forest, np.full(int(later.sum()), head, np.int32), rows.features[later])
    output = slots_of(job.spec.classes[0])[slot].output
    if output == 0:
        begin, end = found["row_begin"][asset : asset + 2]
        np.testing.assert_array_equal(np.clip(walked, 0, 120), found["values"][begin:end, 0])
    assert np.isfinite(walked).all()


def test_failures_are_warned_of_within_the_budget(trained):
    job, chunks, _ = trained
    thresholds = choose_thresholds(job, chunks)
    document = evaluate(job, chunks, thresholds)
    json.dumps(document, allow_nan=False)
    totals = document["totals"]
    assert totals["failures"] >= 5
    assert totals["failures_warned"] >= 0.8 * totals["failures"]
    assert totals["cases_per_asset_week"] < BUDGET
    assert totals["lead_median_hours"] > 4
    failure = document["classes"][0]["outputs"][1]["levels"]["answering"]
    assert failure["pr_auc"]["low"] <= failure["pr_auc"]["value"] <= failure["pr_auc"]["high"]
    assert failure["pr_auc"]["value"] > 5 * failure["base_rate"]["value"]
    assert flat_metrics(document)["pump", "failure:bearing"]["pr_auc"] == failure["pr_auc"]["value"]


def test_an_asset_that_raises_costs_only_itself(history, tmp_path, monkeypatch, trained):
    job = job_of(history, tmp_path / "run")
    real = own.fit_own_head

    def broken(*arguments):
        if arguments[3].label[0] == broken.bad:
            raise RuntimeError("no luck today")
        return real(*arguments)

    monkeypatch.setattr(own, "fit_own_head", broken)
    rows = Reader(trained[0], "pump").rows("pump-2")
    broken.bad = rows.features[np.flatnonzero(rows.labels[:, 2] == 0)[0], 1]  # its first healthy vibration
    chunks, done = run(job, [8])
    assert done[0].failed == (("pump-2", "RuntimeError: no luck today"),)
    pack = Pack.from_bytes(pack_of(job, chunks))
    row = pack.asset_index("pump-2")
    assert set(pack.asset_reasons[row].tolist()) == {Why.QUARANTINED}
    assert pack.asset_heads[row].tolist() == pack.class_heads[0].tolist()


def test_a_sketch_is_the_weighted_quantiles():
    values = np.array([[1.0], [2.0], [np.nan], [3.0]], np.float32)
    sketch = sketch_of(values, np.array([1, 14, 5, 1], np.float32))
    assert sketch[0].tolist() == [1.0] * 2 + [2.0] * 14 + [3.0]
    assert np.isnan(sketch_of(values[2:3], np.ones(1, np.float32))).all()
