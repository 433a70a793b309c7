"""The FastAPI server: uploads, models, datasets, jobs, events, artifacts and keys.

One room per resource; `database` and `storage` hold the rows and the files, `web` what every route shares.
The worker uses `settings`, `database`, `storage`, `queue`, `jobs.states` and `events.repository`.
"""
