"""Data in memory, the training loop, evaluation and calibration.

From outside: `Data`, `load_data`, `train`, `evaluate`, `TASKS`, `calibrate`, `correct_biases`.
"""
