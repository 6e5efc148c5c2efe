"""Modules of the benchmark harness (bench/run, bench/setup)."""
