"""What a snapshot holds of a training, and how the training goes on from it."""

from __future__ import annotations

from typing import Any

from dianaq.schemas.events import LogBody
from dianaq_quant.modules.adc import converters
from dianaq_quant.training.course import Course
from dianaq_quant.training.snapshots import Snapshot, random_state, restore_random_state
from dianaq_quant.training.step import Step


def store(snapshot: Snapshot, start: str, course: Course, step: Step) -> None:
    """Write a training down at the end of an epoch; of one that has ended, only what is left of it.

    Args:
        start: digest of the network before the training.
    """
    plain: dict[str, Any] = {"course": course.as_plain()}
    tensors: dict[str, Any] = {"kept": dict(course.kept), "random": random_state()}
    if not course.ended:
        plain |= {"taken": step.taken, "parts": step.parts, "noise": [adc.calls for adc in converters(step.network)]}
        tensors |= {
            "network": dict(step.network.state_dict()),
            "average": {} if step.average is None else dict(step.average.network.state_dict()),
            "optimiser": step.optimiser.state_dict()["state"],
            "oscillations": step.oscillations.state(),
        }
    snapshot.save(start, plain, tensors)


def restore(snapshot: Snapshot, start: str, course: Course, step: Step) -> bool:
    """Go on from a snapshot, if there is one of this training."""
    found = snapshot.load(start)
    if found is None:
        return False
    plain, tensors = found
    epoch, epochs = plain["course"]["epoch"], course.settings.epochs
    where = "is taken as it ended" if plain["course"]["ended"] else "goes on"
    snapshot.tell(LogBody(message=f"{course.iteration} {where} after epoch {epoch} of {epochs}, from a snapshot"))
    course.restore(plain["course"], tensors["kept"])
    restore_random_state(tensors["random"])
    if not course.ended:
        step.restore(plain["taken"], plain["parts"])
        step.network.load_state_dict(tensors["network"])
        if step.average is not None:
            step.average.network.load_state_dict(tensors["average"])
        groups = step.optimiser.state_dict()["param_groups"]
        step.optimiser.load_state_dict({"state": tensors["optimiser"], "param_groups": groups})
        step.oscillations.restore(tensors["oscillations"])
        for adc, calls in zip(converters(step.network), plain["noise"], strict=True):
            adc.resume(calls)
    return True
