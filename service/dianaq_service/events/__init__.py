"""A job's history: written one row per event (`repository`), read as pages or followed (`follow`)."""
