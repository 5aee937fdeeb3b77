"""Weights: where they come from, and how files of them are read and fitted to a network."""
