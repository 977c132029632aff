"""Benchmarks: each compares in one run, in turn, and prints ratios."""
