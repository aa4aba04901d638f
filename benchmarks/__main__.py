"""Runs the short benchmarks in turn; each writes `benchmarks/out/<name>.json` and prints a Markdown table."""

from benchmarks import attribution, growth, libraries, obvious

if __name__ == "__main__":
    for benchmark in (attribution, obvious, growth, libraries):
        benchmark.main()
