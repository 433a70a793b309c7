"""Data in memory, the training loop, evaluation and calibration.

From outside: `Data`, `load_data`, `train`, `trace_step`, `Snapshots`, `evaluate`, `TASKS`, `calibrate`,
`correct_biases`.
"""
