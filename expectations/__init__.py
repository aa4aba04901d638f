"""Gates: Great Expectations suites over raw extractions, before their commit, and over the marts, before a release."""
