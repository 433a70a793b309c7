"""Data in memory and how training is fed with them, the training loop, evaluation and calibration.

From outside: `Data`, `load_data`, `Feed`, `train`, `trace_step`, `Snapshots`, `evaluate`, `TASKS`, `calibrate`,
`correct_biases`.
"""
