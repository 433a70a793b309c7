"""What is kept for how long (`expiry`), what is removed with what (`removal`), and the thread that sees to it.

Everywhere the rows go first and the files after: a crash in between leaves files that no row names, which
`orphans` finds, and never a row whose file is gone.
"""
