"""Runs every simulation in turn; each writes `simulations/out/<name>.json` and prints a Markdown table."""

import pkgutil
from importlib import import_module

import simulations

if __name__ == "__main__":
    for module in sorted(found.name for found in pkgutil.iter_modules(simulations.__path__)):
        if module != "__main__" and hasattr(simulation := import_module(f"simulations.{module}"), "main"):
            simulation.main()
