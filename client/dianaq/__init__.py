"""The dianaq SDK, its command line, and the schemas that client, service and worker share.

Example:
    >>> from dianaq import Client, JobSpec, Recipe
    >>> client = Client()
    >>> job = client.submit_job(
    ...     JobSpec(
    ...         model=client.upload_model("resnet8.onnx"),
    ...         dataset=client.upload_dataset("cifar10.npz"),
    ...         recipe=Recipe(preset="ptq"),
    ...     )
    ... )
    >>> job.wait()
    >>> job.download("out/")

Names load on first use: importing the package alone costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dianaq.client import Client, JobHandle, SweepHandle
    from dianaq.errors import DianaqError, JobCancelled, JobFailed, ServiceUnavailable
    from dianaq.schemas.augmentation import Augmentation
    from dianaq.schemas.cores import AnalogWeights, CoreMapping, Noise, NoiseSweep, Target
    from dianaq.schemas.deployment import Remedies
    from dianaq.schemas.quantisers import InitStrategy, QuantiserRule, Quantisers, QuantiserSpec
    from dianaq.schemas.ranges import QRange
    from dianaq.schemas.recipe import Calibration, PostTraining, Recipe, Training
    from dianaq.schemas.report import JobReport, read_report
    from dianaq.schemas.resources import Artifact, Dataset, Job, Model, ModelInfo, WeightsInfo
    from dianaq.schemas.spec import JobSpec, NetworkInterface, NetworkPart, Preprocessing, ZooModel
    from dianaq.schemas.sweep_table import SweepTable
    from dianaq.schemas.sweeps import Sweep, SweepSpec

__version__ = "0.1.0"

__all__ = [
    "AnalogWeights",
    "Artifact",
    "Augmentation",
    "Calibration",
    "Client",
    "CoreMapping",
    "Dataset",
    "DianaqError",
    "InitStrategy",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobHandle",
    "JobReport",
    "JobSpec",
    "Model",
    "ModelInfo",
    "NetworkInterface",
    "NetworkPart",
    "Noise",
    "NoiseSweep",
    "PostTraining",
    "Preprocessing",
    "QRange",
    "QuantiserRule",
    "QuantiserSpec",
    "Quantisers",
    "Recipe",
    "Remedies",
    "ServiceUnavailable",
    "Sweep",
    "SweepHandle",
    "SweepSpec",
    "SweepTable",
    "Target",
    "Training",
    "WeightsInfo",
    "ZooModel",
    "__version__",
    "read_report",
]

_HOMES = {
    "schemas.augmentation": ("Augmentation",),
    "client": ("Client", "JobHandle", "SweepHandle"),
    "errors": ("DianaqError", "JobCancelled", "JobFailed", "ServiceUnavailable"),
    "schemas.cores": ("AnalogWeights", "CoreMapping", "Noise", "NoiseSweep", "Target"),
    "schemas.deployment": ("Remedies",),
    "schemas.quantisers": ("InitStrategy", "QuantiserRule", "QuantiserSpec", "Quantisers"),
    "schemas.ranges": ("QRange",),
    "schemas.report": ("JobReport", "read_report"),
    "schemas.resources": ("Artifact", "Dataset", "Job", "Model", "ModelInfo", "WeightsInfo"),
    "schemas.recipe": ("Calibration", "PostTraining", "Recipe", "Training"),
    "schemas.spec": ("JobSpec", "NetworkInterface", "NetworkPart", "Preprocessing", "ZooModel"),
    "schemas.sweep_table": ("SweepTable",),
    "schemas.sweeps": ("Sweep", "SweepSpec"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
