"""What a training process reports, as a job's events, checkpoint and result file."""

import csv
import io
import time
from collections.abc import Iterable, Mapping
from typing import Any

from finetune.job import AnyEvent, Phase, Started, Step
from finetune.jobs.records import Event, Wishes

# OpenAI's columns of a result file.
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def told(event: AnyEvent) -> list[Event]:
    """The job's events for one of the training's; how it ended is told by whoever waited for it."""
    match event:
        case Phase(name):
            return [Event(message=f"The training process is {name}")]
        case Started(rows, held_out, steps):
            message = f"Learning from {rows} rows in {steps} steps; {held_out} rows are held out"
            return [Event(message=message, data={"trained_tokens": event.trained_tokens})]
        case Step(step, total, loss):
            data = {
                "step": step,
                "total_steps": total,
                "train_loss": loss,
                "train_mean_token_accuracy": event.accuracy,
                "learning_rate": event.learning_rate,
            }
            return [
                Event(type="metrics", message=f"Step {step}/{total}: training loss={loss:.4f}", data=data)
            ]
    return []


def learned(event: AnyEvent) -> dict[str, Any]:
    """What of the job's outcome an event makes known."""
    match event:
        case Started():
            chosen = Wishes(
                n_epochs=event.hyperparameters.epochs, batch_size=event.hyperparameters.batch_size
            )
            return {"chosen": chosen}
        case Step():
            return {"estimated_finish": int(time.time() + event.eta)}
    return {}


def step_metrics(steps: Iterable[Mapping[str, Any]]) -> bytes:
    """The result file: a row for each step, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for step in steps:
        writer.writerow([step["step"], step["train_loss"], step["train_mean_token_accuracy"], "", ""])
    return text.getvalue().encode()
