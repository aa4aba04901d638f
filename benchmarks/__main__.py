"""Runs the short benchmarks in turn; each writes `benchmarks/out/<name>.json` and prints a Markdown table."""

from benchmarks import attribution

if __name__ == "__main__":
    attribution.main()
