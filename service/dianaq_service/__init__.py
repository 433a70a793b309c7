"""The FastAPI server: uploads, jobs, events, artifacts and keys, over a database and an artifact store."""
