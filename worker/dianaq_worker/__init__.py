"""The Celery supervisor, and the child process that runs one attempt of one job.

__main__      the Celery process: receives job ids, never imports torch
leases        who holds a job; every change of hands is one conditional UPDATE
supervisor    runs one attempt: claim, child process, heartbeat, end
sweeper       finds jobs whose message or worker was lost
child         the attempt itself; the only part that imports `dianaq_quant`
processes     process groups that end with their parent
embedded      the whole stack on one machine, and `dianaq up`
"""
