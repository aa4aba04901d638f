"""`python -m timecourse.cli` is `timecourse`."""

from timecourse.cli import main

main()
