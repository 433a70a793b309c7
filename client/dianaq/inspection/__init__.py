"""What is inside an uploaded file, found without executing any of it. Needs the `inspection` extra.

From outside: `inspect_model`, `inspect_dataset`, `check_fit`, and the operators that are supported.
"""
