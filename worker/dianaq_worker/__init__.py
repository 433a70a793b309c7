"""The Celery supervisor, and the child process that runs one attempt of one job.

The supervisor never imports torch; only `dianaq_worker.child` imports `dianaq_quant`.
"""
