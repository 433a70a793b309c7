"""Uploaded datasets; what they share with the other kind of upload lives in `uploads`."""
