"""What the configurations of all networks have in common: the clips they take, and plain forms."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Config = TypeVar("Config", bound="NetworkConfig")


@dataclass(frozen=True)
class NetworkConfig:
    """The clips that a network takes; a network adds its own choices in a subclass.

    A subclass is a frozen dataclass whose fields have defaults and plain types: numbers, words,
    switches, tuples and None.

    Attributes:
        frames: Longest clip, T.
        image_size: Side of a square frame in pixels, or (height, width).

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A value describes no network.
    """

    frames: int = 16
    image_size: int | tuple[int, int] = 224

    def __post_init__(self) -> None:
        check_count("frames", self.frames)
        if isinstance(self.image_size, tuple):
            check_tuple("image_size", self.image_size)
            if len(self.image_size) != 2:
                raise ValueError(
                    f"image_size is {self.image_size}; give a side or (height, width)"
                )
        else:
            check_count("image_size", self.image_size)

    @classmethod
    def paper(cls: type[Config]) -> Config:
        """The network as it was published; the same as the defaults."""
        return cls()

    @classmethod
    def demo(cls: type[Config]) -> Config:
        """For clips of 8 x 64 x 64, the size of the synthetic phantom."""
        return cls(frames=8, image_size=64)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        if isinstance(self.image_size, tuple):
            return self.image_size
        return self.image_size, self.image_size

    @property
    def sorts_frames(self) -> bool:
        """Whether the network has the frame self-sorting task."""
        return False

    @property
    def segments_nodule(self) -> bool:
        """Whether the network has the nodule segmentation task."""
        return False

    @property
    def learns_masks(self) -> bool:
        """Whether its segmentation is learned from masks, and means nothing without."""
        return self.segments_nodule

    @property
    def reads_ceus(self) -> bool:
        """Whether it needs the contrast clip; else a B-mode image is enough."""
        return True

    @property
    def mixes_frames(self) -> bool:
        """Whether frames are read together; else `frames` of each clip are trained on."""
        return True

    @property
    def segmented_modality(self) -> Literal["bus", "ceus"]:
        """The clip whose nodule masks the network is given."""
        return "bus"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types, fit for JSON and for checkpoints."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values}

    @classmethod
    def from_dict(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """The inverse of `to_dict`; absent fields take their defaults.

        Raises:
            ValueError: A key names no field.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown config keys {unknown}; remove them, known are {known}")
        fields: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
        }
        return cls(**fields)


def check_count(name: str, value: object) -> None:
    """Refuse what is no integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give an integer")
    if value < 1:
        raise ValueError(f"{name} is {value}; give an integer >= 1")


def check_real(name: str, value: object) -> None:
    """Refuse what is no finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give a number")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; give a finite number")


def check_tuple(name: str, value: object) -> None:
    """Refuse what is no tuple of integers of at least 1."""
    if not isinstance(value, tuple):
        raise TypeError(f"{name} is {value!r}; give a tuple of integers")
    for entry in value:
        check_count(f"an entry of {name}", entry)
