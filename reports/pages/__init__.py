"""The pages of a report. Each is a folder: its `__init__.py` has SLUG, TITLE and `build(partition)`, which reads marts,
derives nothing and returns a Page; beside it lie the page's parts.
"""
