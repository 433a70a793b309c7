"""Jobs: submitted and cancelled through the API (`service`); moved between states in one way (`states`).

A job may start where another one leaves off (`start`), and wait for it (`families`).
"""
