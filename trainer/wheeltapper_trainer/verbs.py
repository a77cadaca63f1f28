"""The words that the trainer adds to the command line."""

from wheeltapper_trainer.demo_verb import demo
from wheeltapper_trainer.history_verbs import import_, simulate
from wheeltapper_trainer.train_verbs import evaluate, score, train
from wheeltapper_trainer.tune_verb import tune

__all__ = ["demo", "evaluate", "import_", "score", "simulate", "train", "tune"]
