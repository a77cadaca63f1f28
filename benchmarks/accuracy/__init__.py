"""How good the models are on public data, scored through the pack: `python -m benchmarks.accuracy --dataset cmapss`."""
