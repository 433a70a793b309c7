"""What may go wrong around a job, done to a real stack: real Redis, real Celery, real children, the real pipeline.

stack        the service as processes that a test can kill, pause and start again one by one
job          the job that is disturbed, and what it gives undisturbed
watch        waiting for a job to come to a point, as a user would see it
aftermath    what must hold after every fault
recovery     how long the service took to recover, for the table in `docs/reliability.md`
"""
