"""The causal check: which components are silenced together, how, and what that does to predictions."""
