"""Are a job's files fit to train on? Everything that is wrong with them, in the words that OpenAI uses."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from finetune.dataset import MINIMUM_ROWS, Check, Problem, check_file, check_line, check_preference
from finetune.jobs.errors import UnknownFile
from finetune.jobs.files import FileStore
from finetune.jobs.records import Event, JobError, StoredJob

MOST_PROBLEMS = 10_000  # that are kept of one file
MOST_IN_MESSAGE = 50  # the others stand in the job's events
AN_EVENT = 100  # problems in each
CHECKS: dict[str, Check[Any]] = {"supervised": check_line, "dpo": check_preference}


def file_faults(job: StoredJob, files: FileStore) -> tuple[JobError, list[Event]] | None:
    """Why the job's files cannot be used, with events that list every problem; None: they can."""
    wanted = [("training", job.training_file, MINIMUM_ROWS), ("validation", job.validation_file, 1)]
    for role, id, minimum in wanted:
        if not id:
            continue
        try:
            stored = files.get(id, job.owner)
            problems = list(
                islice(
                    check_file(files.path(stored.id), CHECKS[job.asked.method], minimum), MOST_PROBLEMS + 1
                )
            )
        except (UnknownFile, OSError) as error:
            reason = str(error) if isinstance(error, UnknownFile) else f"it cannot be read: {error.strerror}"
            problems = [Problem(0, "$", reason)]
        if problems:
            return _error(role, id, problems), list(_events(role, problems))
    return None


def _error(role: str, id: str, problems: Sequence[Problem]) -> JobError:
    param = f"{role}_file"
    if len(problems) == 1 and "must have at least" in problems[0].cause:
        return JobError(code="invalid_n_examples", message=problems[0].cause, param=param)
    shown = [_spelt(problem) for problem in problems[:MOST_IN_MESSAGE]]
    if len(problems) > MOST_IN_MESSAGE:
        shown.append(f"and {_count(problems, MOST_IN_MESSAGE)} more, which the job's events list")
    message = f"The job failed due to an invalid {role} file. Invalid file format. " + "; ".join(shown)
    return JobError(code=f"invalid_{role}_file", message=message, param=param)


def _events(role: str, problems: Sequence[Problem]) -> Iterator[Event]:
    yield Event(level="error", message=f"The {role} file has {_count(problems, 0)} problem(s).")
    kept = problems[:MOST_PROBLEMS]
    for start in range(0, len(kept), AN_EVENT):
        part = kept[start : start + AN_EVENT]
        data = [{"line": problem.line, "path": problem.path, "cause": problem.cause} for problem in part]
        yield Event(level="error", message="; ".join(map(_spelt, part)), data={"problems": data})


def _spelt(problem: Problem) -> str:
    """`Example 536, $.messages[2].role: must be …`; OpenAI's word for a line is example."""
    return f"Example {problem.line}, {problem.path}: {problem.cause}" if problem.line else problem.cause


def _count(problems: Sequence[Problem], less: int) -> str:
    known = min(len(problems), MOST_PROBLEMS) - less
    return f"{known:,}" if len(problems) <= MOST_PROBLEMS else f"more than {known:,}"
