"""Benchmarks: our way beside the ways of others, in one process, equality first.

``python -m tests.bench --help`` lists them. Every benchmark runs each way between two runs of
a base (the naive operator, the plain forward), so that a machine that slows down slows both, and
writes what it found with versions and machine to ``data/benchmarks``; `nbhelpers.benchmarks`
draws that, and `report` puts it into columns. How others store attention is written in
`baselines` from its description, for comparison alone.
"""
