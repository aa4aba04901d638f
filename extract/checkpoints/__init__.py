"""Where checkpoints come from, what their names say, and whether their files are whole."""
