"""A recipe: how each iteration is trained and quantised.

It may start from a preset and override any part of it: `{"preset": "qat", "hardware_exact": {"epochs": 5}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dianaq.schemas.augmentation import Augmentation
from dianaq.schemas.cores import AnalogWeights, Noise, NoiseSweep
from dianaq.schemas.events import ITERATIONS, Iteration
from dianaq.schemas.quantisers import Quantisers
from dianaq.schemas.strict import StrictModel

Preset = Literal["ptq", "ptq-tuned", "qat-fast", "qat", "qat-best"]
Oscillations = Literal["none", "damp", "freeze"]


class Training(StrictModel):
    """How one iteration is trained. Zero epochs leave the network as the iteration before gave it."""

    epochs: Annotated[int, Field(ge=0, le=10_000)] = 0
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    """`adamw` takes the decay out of the gradient (Loshchilov and Hutter, 2019), where `adam` adds it to that."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Nesterov momentum; `sgd` only."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of weights; never of biases, BatchNorm parameters or thresholds."""
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs (or part of one) over which the learning rate rises linearly from zero; fewer than `epochs`, and than
    those of a progressive step."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of all gradients together; a longer one is shortened to it. Not limited by default."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """End after so many epochs without a better validation figure than the best so far (that before training included,
    where it competes); never by default. It is for `constant`: with `cosine` the figure often stands still while the
    rate is high and rises as it falls to zero, and a training that is ended early never comes to that part. Give
    `cosine` fewer epochs instead, or a patience of half of them, so that only a hopeless training is cut short."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    samples: Annotated[int, Field(ge=2)] | None = None
    """Train on so many samples alone, a fixed random part of `train`; on all of them by default."""
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the loss that pulls the outputs towards the float network's: for classification the Kullback-Leibler
    divergence (Hinton et al., 2015), the rest being the cross-entropy of the labels, which are not needed at 1; for
    reconstruction and regression the mean squared error to them, the rest being that to the input or the labels. An
    imitation is trained on them alone, whatever the share."""
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the moving average of the weights that is evaluated and kept; at 0 the last weights are."""
    oscillations: Oscillations = "none"
    """What is done about weights that jump to and fro between two integers (Nagel et al., 2022), in layers whose
    weights have at most 16 of them. `damp`: they are pulled to their integers, harder and harder; `freeze`: those that
    jump too often stay, to the end of the iteration, at the integer where they have been most."""
    augmentation: Augmentation = Augmentation()
    """What the training samples are put through, each batch anew; it suits a network that was trained so, or has the
    epochs to get used to it."""


class Calibration(StrictModel):
    """What the observers see before scales are chosen."""

    samples: Annotated[int, Field(ge=1)] = 512
    """Training samples that the observers see; all of them when there are fewer."""


class PostTraining(StrictModel):
    """What is done to a network without training it."""

    equalise: bool = True
    """Cross-layer equalisation of channel ranges (Nagel et al., 2019) where no addition is in between."""
    rounding: Literal["nearest", "error_feedback"] = "error_feedback"
    """How weights become integers. `error_feedback`: one after another, each taking back part of the error that those
    before it made in the layer's output on the calibration data (Frantar et al., 2023); not where `hardware_exact`
    is trained on more than its `samples`, which moves the weights itself."""
    bias_correction: bool = True
    """Correct each layer's bias for the mean error of its quantised output on the calibration data."""


class Recipe(StrictModel):
    """The training and quantisation settings of a job, in the order they apply."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    preset: Preset | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of `train` held out, by the seed, when the dataset has no `val`: at least 500 samples, or a tenth where that
    is fewer. Without `test`, the report's figures are measured on them."""
    quantisers: Quantisers = Quantisers()
    calibration: Calibration = Calibration()
    post_training: PostTraining = PostTraining()
    float_: Training = Field(default=Training(), alias="float")
    fake_quantised: Training = Training()
    hardware_mapped: Training = Training()
    hardware_exact: Training = Training()
    progressive: tuple[AnalogWeights, ...] = ()
    """Ranges that the analog layers' weights pass through before they become ternary, each trained for its epochs
    with the settings of `hardware_mapped` (progressive quantisation: 8 bits, 4 bits, ternary)."""
    noise: Noise = Noise()
    """What the analog layers suffer while `hardware_mapped` and `hardware_exact` are trained; the exported network and
    all reported accuracies are without."""
    noise_sweep: NoiseSweep | None = None

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("preset"), str) and data["preset"] in PRESETS:
            return merge(PRESETS[data["preset"]], data)
        return data

    def training(self, iteration: Iteration) -> Training:
        """The training settings of one iteration."""
        found = self.float_ if iteration == "float" else getattr(self, iteration)
        assert isinstance(found, Training)
        return found

    def epochs(self, iteration: Iteration) -> int:
        """Epochs of an iteration, those of progressive steps included."""
        steps = self.progressive if iteration == "hardware_mapped" else ()
        return self.training(iteration).epochs + sum(step.epochs for step in steps)

    @property
    def trains(self) -> bool:
        """Whether any iteration has epochs."""
        return any(self.epochs(i) for i in ITERATIONS)

    @model_validator(mode="after")
    def _float_has_no_teacher(self) -> Self:
        if self.float_.distillation:
            raise ValueError("float.distillation must be 0: the float network is what the others are distilled from")
        return self

    @model_validator(mode="after")
    def _float_has_no_integers(self) -> Self:
        if self.float_.oscillations != "none":
            raise ValueError(
                f"float.oscillations must be 'none', not {self.float_.oscillations!r}: float weights have no integers "
                "to jump between"
            )
        return self


_TRAINED: dict[str, Any] = {
    "schedule": "cosine",
    "warmup_epochs": 0.1,
    "distillation": 0.5,
    # Rounding keeps the last weights jumping about their mean; their average over some 300 steps does not.
    "averaging": 0.997,
}

# With BatchNorm folded, gradients grow with the folded slopes: at a rate of 0.01 ResNets diverge.
_EXACT: dict[str, Any] = {**_TRAINED, "epochs": 1, "learning_rate": 0.0005}

_THOROUGH: dict[str, Any] = {**_TRAINED, "optimiser": "adam", "batch_size": 64, "averaging": 0.995}

PRESETS: dict[str, dict[str, Any]] = {
    # Post-training: calibrate, equalise, round weights, correct biases; nothing is trained.
    "ptq": {},
    # The same on more samples, and then the rounded weights are tuned until the network gives what the float one does
    # on them. It needs no labels, and takes as long as a few thousand samples take to train on.
    "ptq-tuned": {
        "calibration": {"samples": 1024},
        "hardware_exact": {
            "epochs": 10,
            "samples": 1024,
            "batch_size": 32,
            "optimiser": "adam",
            # A step of Adam is about as long as this rate; those of int8 weights are ten times as long.
            "learning_rate": 0.0002,
            "schedule": "cosine",
            "distillation": 1.0,
            # Some hundred steps in all: their average over the last hundred.
            "averaging": 0.99,
        },
    },
    # Quantisation-aware training: with the chip's scales while BatchNorm is alive, then exactly as the chip computes.
    "qat-fast": {
        "hardware_mapped": {**_TRAINED, "epochs": 2, "learning_rate": 0.02},
        "hardware_exact": _EXACT,
    },
    # The same for longer, with larger steps and weights that decay: enough for a network that is fed crops or the like
    # for the first time, or was trained without decay, to gain from it. The limit on gradients is for small datasets:
    # DS-CNN, trained on a thousand spectrograms, gains 3.9 points with it, and 2.3 without. Held-out samples choose
    # nothing, as the rate falls to zero: few are enough.
    "qat": {
        "validation_fraction": 0.02,
        "hardware_mapped": {**_TRAINED, "epochs": 12, "learning_rate": 0.03, "weight_decay": 0.0005, "clip": 1.0},
        "hardware_exact": _EXACT,
    },
    # As long as it takes to bring ternary weights, on the analog core, next to the float network. Such a weight changes
    # when the real one behind it crosses a threshold, typically 0.05 to 0.1 away: a step of Adam is about as long as
    # its rate, so that a hundred steps can carry a weight across, and one alone cannot. Small batches, because it is
    # the number of steps that counts.
    "qat-best": {
        "validation_fraction": 0.02,
        "hardware_mapped": {**_THOROUGH, "epochs": 48, "learning_rate": 0.001},
        # BatchNorm is integers now: what that has cost is learned again.
        "hardware_exact": {**_THOROUGH, "epochs": 3, "learning_rate": 0.0001},
    },
}


_SMALL_STEPS: dict[str, Any] = {"optimiser": "adam", "weight_decay": 0.0}

PRESETS_OF_SQUARES: dict[str, dict[str, Any]] = {
    # What the presets train with where the loss is a squared error (tasks `regression` and `imitation`). Its gradient
    # grows with the error and has no bound, as that of cross-entropy has: at the rates above, SGD leaves a pose network
    # of R^2 0.9995 at -1.6. Steps of Adam are as long as the rate, whatever the gradient.
    "qat-fast": {
        "hardware_mapped": {**_SMALL_STEPS, "learning_rate": 0.0003},
        "hardware_exact": {**_SMALL_STEPS, "learning_rate": 0.0002},
    },
    "qat": {
        "hardware_mapped": {**_SMALL_STEPS, "learning_rate": 0.0005},
        "hardware_exact": {**_SMALL_STEPS, "learning_rate": 0.0002},
    },
}


def of_squares(recipe: Any) -> Any:
    """A recipe, as a mapping or whole, for a loss that is a squared error: with such a preset's settings.

    What a mapping sets stays. Of a whole recipe, what differs from the preset stays.
    """
    if isinstance(recipe, Mapping):
        preset = recipe.get("preset")
        return merge(PRESETS_OF_SQUARES.get(preset, {}), recipe) if isinstance(preset, str) else recipe
    if not isinstance(recipe, Recipe) or recipe.preset not in PRESETS_OF_SQUARES:
        return recipe
    plain = recipe.model_dump(by_alias=True)
    for iteration, settings in PRESETS_OF_SQUARES[recipe.preset].items():
        former = Training.model_validate(PRESETS[recipe.preset][iteration]).model_dump()
        plain[iteration] |= {k: v for k, v in settings.items() if plain[iteration][k] == former[k]}
    return plain


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` laid on top, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True, by_alias=True)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
