"""The Celery supervisor, and the child process that runs one attempt of one job.

__main__      the Celery process of each place: receives messages, never imports torch
places        the GPUs of this machine, or its CPU
crew          a process for each place, where there are several
choice        which of the waiting jobs is next
leases        who holds a job; every change of hands is one conditional UPDATE
supervisor    runs one attempt: claim, child process, heartbeat, end
patience      what is done with a database that is away
sweeper       finds jobs whose message or worker was lost
child         the attempt itself; the only part that imports `dianaq_quant`
processes     process groups that end with their parent, within limits
limits        what a job's process may use, and the errors of those that wanted more
cgroup        memory limits, and deaths for want of memory, as the kernel knows them
embedded      the whole stack on one machine, and `dianaq up`
"""
