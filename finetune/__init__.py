"""Datasets in, adapters out: check, split, train, evaluate, gate, publish."""
