"""What can go wrong with files and jobs, apart from what is in the rows.

JobsError
├── UnknownFile     no such file, or another team's
├── FileInUse       a job that is not over needs it
├── UnknownJob      no such job, or another team's
├── UnknownCursor   `after` names nothing that is in the list
├── WrongStatus     the job is not in a status from which that can be done
└── LeaseLost       a worker's job was cancelled, paused, or taken over by another
"""

from finetune.jobs.states import Status


class JobsError(Exception):
    """Raised on purpose; the text is for the client."""


class UnknownFile(JobsError):
    def __init__(self, id: str) -> None:
        super().__init__(f"No such File object: {id}")
        self.id = id


class FileInUse(JobsError):
    def __init__(self, id: str, job: str) -> None:
        super().__init__(f"The file {id} is used by the job {job}, which is not over: cancel it first.")


class UnknownJob(JobsError):
    def __init__(self, id: str) -> None:
        super().__init__(f"Could not find fine tune: {id}")
        self.id = id


class UnknownCursor(JobsError):
    def __init__(self, after: str) -> None:
        super().__init__(f"'after' must be the id of something in this list; {after!r} is not.")


class WrongStatus(JobsError):
    def __init__(self, id: str, status: Status, wish: str, because: str = "") -> None:
        super().__init__(f"The job {id} cannot be {wish}: {because or f'it is {status.value}'}.")
        self.status = status


class LeaseLost(JobsError):
    def __init__(self, id: str) -> None:
        super().__init__(f"the job {id} is no longer this worker's")
