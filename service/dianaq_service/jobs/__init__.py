"""Jobs: submitted and cancelled through the API (`service`); moved between states in one way (`states`)."""
