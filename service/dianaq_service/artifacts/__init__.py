"""The files that a succeeded job left."""
