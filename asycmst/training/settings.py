"""What a training run is made of: model, recipe, data, and how it runs."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from asycmst.config import AsyCMSTConfig
from asycmst.data.contour_noise import ContourNoise
from asycmst.data.phantom import PhantomConfig
from asycmst.network_config import NetworkConfig
from asycmst.training.recipe import Recipe

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class PhantomSplits(PhantomConfig):
    """Synthetic patients for training and validation, with the fields of PhantomConfig.

    Attributes:
        train: number of training samples.
        validation: number of validation samples.
        seed: of the data; no two splits of any two seeds share a patient.
    """

    train: int = 1600
    validation: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("train", 1), ("validation", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least {low}")


@dataclass(frozen=True)
class DataSettings:
    """Where the samples come from: a cache of prepared clips, single images, or the phantom.

    Attributes:
        cache: folder that `asycmst prepare` wrote.
        images: CSV of single B-mode images instead, for a network that reads no contrast clip:
            columns id, image and label, optionally patient, split and mask.
        splits: folder that `asycmst split` wrote; None takes the data's own split column.
        fold: which of these splits, counted from 1.
        phantom: synthetic patients instead of a cache.
        label_noise: share of each class whose training labels are inverted, in [0, 1];
            validation and test keep theirs (Section 4.7).
        contour_noise: all training contours are drawn otherwise, see
            `asycmst.data.contour_noise`; None leaves them as they are.
        noise_seed: of both.
        workers: processes that load batches; None is one for every four processor cores, at most
            4, and none where there are fewer. One of several jobs side by side has none.

    Raises:
        ValueError: a number is out of range, or the fields contradict each other.
    """

    cache: Path | None = None
    images: Path | None = None
    splits: Path | None = None
    fold: int | None = None
    phantom: PhantomSplits | None = None
    label_noise: float = 0.0
    contour_noise: ContourNoise | None = None
    noise_seed: int = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("cache", "images", "phantom") if getattr(self, n) is not None]
        if len(given) > 1:
            names = " and ".join(f"data.{name}" for name in given)
            raise ValueError(f"{names} are both given; set one to null")
        if self.phantom is not None and self.splits is not None:
            raise ValueError("data.splits belong to a data.cache; the phantom has its own")
        if (self.splits is None) != (self.fold is None):
            raise ValueError("give data.splits and data.fold together, or neither")
        if not 0 <= self.label_noise <= 1:
            raise ValueError(f"data.label_noise={self.label_noise} is not allowed; use [0, 1]")
        if self.noise_seed < 0:
            raise ValueError(f"data.noise_seed={self.noise_seed} is not allowed; use 0 or more")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"data.workers={self.workers} is not allowed; use 0 or more")


@dataclass(frozen=True)
class RunSettings:
    """How a run runs. Only seed, precision and imagenet_weights decide what comes out.

    Attributes:
        out: folder of the run.
        seed: of initial weights, order, augmentation and dropout.
        imagenet_weights: file with a torchvision ResNet-18 state dict that the encoders start
            from; None starts from random weights.
        precision: "32-true", or mixed with bfloat16 or, on a GPU, float16.
        accelerator: "auto" takes a GPU where there is one.
        devices: processes of this machine, one device each; None is one, or what `torchrun` says.
        num_nodes: machines; None is one, or what `torchrun` says.
        sync_batchnorm: batch statistics over all GPUs instead of each GPU's own.
        threads: processor threads of this process; None is torch's choice.
        save_minutes: at least so often last.ckpt is written.
        save_steps: also after every so many steps; None is never.

    Raises:
        ValueError: a number is out of range.
    """

    out: Path | None = None
    seed: int = 0
    imagenet_weights: Path | None = None
    precision: Precision = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | None = None
    num_nodes: int | None = None
    sync_batchnorm: bool = False
    threads: int | None = None
    save_minutes: float = 10.0
    save_steps: int | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"run.seed={self.seed} is not allowed; use 0 or more")
        if not self.save_minutes > 0:
            raise ValueError(f"run.save_minutes={self.save_minutes} is not allowed; use > 0")
        for name in ("devices", "num_nodes", "threads", "save_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"run.{name}={value} is not allowed; use 1 or more, or null")
        if self.sync_batchnorm and self.accelerator == "cpu":
            raise ValueError("run.sync_batchnorm works on GPUs only; set it to false")
        if self.precision == "16-mixed" and self.accelerator == "cpu":
            raise ValueError("run.precision=16-mixed works on GPUs only; use bf16-mixed")


@dataclass(frozen=True)
class FitSettings:
    """A whole training run.

    Attributes:
        model: configuration of the network, whose type says which network it is.
        recipe: the optimisation.
        data: the samples.
        run: the rest.
    """

    model: NetworkConfig = field(default_factory=AsyCMSTConfig)
    recipe: Recipe = field(default_factory=Recipe)
    data: DataSettings = field(default_factory=DataSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @classmethod
    def paper(cls) -> "FitSettings":
        """The paper's model and training; the data are yours to name."""
        return cls()

    @classmethod
    def demo(cls) -> "FitSettings":
        """What `asycmst demo` trains: a small model on the phantom."""
        return cls(
            model=AsyCMSTConfig.demo(),
            recipe=Recipe.demo(),
            data=DataSettings(phantom=PhantomSplits()),
        )

    def in_folder(self, out: Path) -> "FitSettings":
        """The same run in another folder."""
        return replace(self, run=replace(self.run, out=out))


PRESETS = {"paper": FitSettings.paper, "demo": FitSettings.demo}
