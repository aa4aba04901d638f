"""What a child needs, loaded once before children are forked; nothing here may start a thread."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported: the models are tiny


import timecourse.cli
import timecourse.expectations.gate
import timecourse.extract.job
import timecourse.refresh
import timecourse.reports.site  # noqa: F401
