"""Data in memory, the training loop, evaluation and calibration.

From outside: `Data`, `load_data`, `train`, `evaluate`, `calibrate`, `correct_biases`.
"""
