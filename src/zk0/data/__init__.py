"""Datasets: where they come from, their frames as arrays, their statistics."""
