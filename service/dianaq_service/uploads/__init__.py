"""What models and datasets have in common: received (`receive`), looked into (`inspect`), kept (`service`); and what
jobs want of a model in part (`parts`).

Nothing uploaded is parsed in the API process: `inspect` runs `sandbox` as a process with limits.
"""
