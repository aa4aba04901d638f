"""The pages of a report: each module has SLUG, TITLE and `build(partition)`, which reads marts and returns a Page."""
