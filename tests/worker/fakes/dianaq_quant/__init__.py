"""Takes the place of the quantisation library in child processes that tests start: no torch, no waiting."""
