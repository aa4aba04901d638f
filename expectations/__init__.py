"""Gates: Great Expectations suites over raw extractions (before they are committed) and over the marts (before release)."""
