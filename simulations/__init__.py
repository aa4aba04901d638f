"""Simulations: do the intervals and tests of the warehouse keep their promises where the truth is known?

Each module has a `main` and writes its result to `simulations/out/`. They run the warehouse's own SQL.
"""
