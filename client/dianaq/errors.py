"""Every error a user can meet, on the wire (`Problem`) and in Python (the exceptions).

    DianaqError                     something named by a stable slug went wrong
    ├── InvalidModel                the model file cannot be used
    │   ├── UnsupportedOperator     one of its nodes has no counterpart on the chip
    │   └── AccumulatorOverflow     a layer's sum leaves the chip's 32 bits
    ├── InvalidDataset              the data file cannot be used, or does not fit the model
    ├── InvalidSpec                 the job specification contradicts itself, the model or the data
    ├── QuantisationError           the network cannot be brought onto the chip
    ├── VerificationError           two executions of the exported network disagree
    ├── JobCancelled                the job was cancelled while it ran
    ├── JobFailed                   a job that was waited for ended in `failed`
    ├── ParentFailed                the job that it starts from failed or was cancelled
    ├── DeadlineExceeded            the job ran for longer than its deadline allows
    ├── LimitExceeded               the job's process went beyond a limit that the operator set
    ├── WorkerLost                  every attempt of the job died without a word
    ├── DiskFull                    the job filled the worker's disk, or found it full
    ├── ServiceError                the service answered with an error of its own
    │   ├── Unauthorised            no key, or a wrong one
    │   ├── NotFound                no such model, dataset, job or artifact
    │   ├── InvalidRequest          a query parameter, header or body that the route does not take
    │   ├── Conflict                the request does not fit the state of the thing
    │   │   └── KeyInUse            the first request with this idempotency key is still under way
    │   ├── KeyReused               the idempotency key was used for another request
    │   ├── Expired                 it was there, and was removed after its time
    │   ├── InsufficientStorage     the service's disk is full
    │   └── TooLarge                the upload exceeds the size cap
    ├── ServiceUnavailable          the service cannot be reached
    └── MissingExtra                a command needs packages that are not installed

A pipeline error, a failed job, a refused upload and a refused request all have the same shape:
RFC 9457 problem details with the members of `Problem`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Problem(BaseModel):
    """RFC 9457 problem details, as every error travels.

    `type` is a stable slug that programs may compare. `detail` names the offending value and what would be
    accepted. `param` is the field, file member or node at fault.
    """

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    detail: str
    status: int = 500
    param: str | None = None
    request_id: str | None = None


class DianaqError(Exception):
    """Base of all errors of this project.

    Args:
        detail: one or two sentences that name the offending value and what would be accepted.
        param: the field, file member or node at fault, if one can be named.
    """

    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str, *, param: str | None = None, request_id: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param
        self.request_id = request_id

    def problem(self) -> Problem:
        """The error as it travels."""
        return Problem(
            type=self.slug,
            title=self.title,
            detail=self.detail,
            status=self.status,
            param=self.param,
            request_id=self.request_id,
        )


class InvalidModel(DianaqError):
    slug, title, status = "invalid-model", "The model cannot be used", 422


class UnsupportedOperator(InvalidModel):
    slug, title, status = "unsupported-operator", "The model has an unsupported operator", 422


class AccumulatorOverflow(InvalidModel):
    """An exported network's sum does not fit the chip's accumulator. `param` is the node that makes it."""

    slug, title, status = "accumulator-overflow", "An accumulator overflows", 422


class InvalidDataset(DianaqError):
    slug, title, status = "invalid-dataset", "The dataset cannot be used", 422


class InvalidSpec(DianaqError):
    slug, title, status = "invalid-spec", "The job specification cannot be used", 422


class QuantisationError(DianaqError):
    slug, title, status = "quantisation-failed", "The network cannot be brought onto the chip", 422


class VerificationError(DianaqError):
    slug, title, status = "verification-failed", "The exported network is not exact", 500


class JobCancelled(DianaqError):
    slug, title, status = "job-cancelled", "The job was cancelled", 409


class JobFailed(DianaqError):
    """A job that was waited for failed. `cause` is the problem that the job carries."""

    slug, title, status = "job-failed", "The job failed", 409

    def __init__(self, detail: str, *, cause: Problem | None = None, param: str | None = None) -> None:
        super().__init__(detail, param=param)
        self.cause = cause


class ParentFailed(DianaqError):
    """A job that waited for the one it starts from, which left nothing to start from."""

    slug, title, status = "parent-failed", "The job to start from did not succeed", 409


class DeadlineExceeded(DianaqError):
    slug, title, status = "deadline-exceeded", "The job ran for longer than its deadline", 422


class LimitExceeded(DianaqError):
    """The job's process needed more than the worker gives to one. `param` is the variable that sets the limit."""

    slug, title, status = "limit-exceeded", "The job went beyond a limit of its worker", 507


class WorkerLost(DianaqError):
    slug, title, status = "worker-lost", "The job's process was lost", 500


class DiskFull(DianaqError):
    """A job met a full disk. It is not tried again by itself: the next attempt would meet the same."""

    slug, title, status = "disk-full", "The worker's disk is full", 507


class ServiceError(DianaqError):
    slug, title, status = "service-error", "The service failed", 500


class Unauthorised(ServiceError):
    slug, title, status = "unauthorised", "A valid API key is needed", 401


class NotFound(ServiceError):
    slug, title, status = "not-found", "No such thing", 404


class InvalidRequest(ServiceError):
    slug, title, status = "invalid-request", "The request cannot be understood", 422


class Conflict(ServiceError):
    slug, title, status = "conflict", "The request does not fit the present state", 409


class KeyInUse(Conflict):
    slug, title, status = "idempotency-key-in-use", "The first request is still under way", 409


class KeyReused(ServiceError):
    slug, title, status = "idempotency-key-reused", "The idempotency key belongs to another request", 422


class TooLarge(ServiceError):
    slug, title, status = "too-large", "The upload is too large", 413


class Expired(ServiceError):
    slug, title, status = "expired", "It was removed after its time", 410


class InsufficientStorage(ServiceError):
    slug, title, status = "insufficient-storage", "The service's disk is full", 507


class ServiceUnavailable(DianaqError):
    slug, title, status = "service-unavailable", "The service cannot be reached", 503


class MissingExtra(DianaqError):
    """A command needs packages that are not installed."""

    slug, title = "missing-extra", "Something is not installed"


def _tree(root: type[DianaqError]) -> dict[str, type[DianaqError]]:
    found = {root.slug: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_problem(problem: Problem) -> DianaqError:
    """The exception whose slug the problem carries; a `ServiceError` for a slug this version does not know."""
    known = _tree(DianaqError).get(problem.type, ServiceError)
    return known(problem.detail, param=problem.param, request_id=problem.request_id)
