"""The folder that a job hands out: its files, the README beside them, and the report as JSON and as a page."""
