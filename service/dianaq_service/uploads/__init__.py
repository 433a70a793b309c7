"""What models and datasets have in common: received (`receive`), looked into (`inspect`), kept (`service`).

Nothing uploaded is parsed in the API process: `inspect` runs `sandbox` as a process with limits.
"""
