"""Checkpoints to raw parquet tables; the only room that imports torch."""
