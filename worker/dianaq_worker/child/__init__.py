"""One attempt of one job, in a process of its own: `python -m dianaq_worker.child JOB_ID ATTEMPT`."""
