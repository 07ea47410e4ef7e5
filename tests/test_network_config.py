"""What the configurations of all networks share."""

import json
from dataclasses import dataclass

import pytest

from asycmst.network_config import NetworkConfig


@dataclass(frozen=True)
class Mine(NetworkConfig):
    widths: tuple[int, ...] = (8, 16)
    word: str | None = None


def test_plain_forms_read_back() -> None:
    config = Mine(frames=4, image_size=(32, 48), widths=(1, 2, 3))
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain == {"frames": 4, "image_size": [32, 48], "widths": [1, 2, 3], "word": None}
    assert Mine.from_dict(plain) == config
    assert Mine.from_dict({}) == Mine.paper() == Mine()
    with pytest.raises(ValueError, match=r"unknown config keys \['width'\]; remove them"):
        Mine.from_dict({"width": 3})


def test_sizes() -> None:
    assert Mine().frame_size == (224, 224)
    assert Mine(image_size=(32, 48)).frame_size == (32, 48)
    demo = Mine.demo()
    assert type(demo) is Mine and (demo.frames, demo.frame_size) == (8, (64, 64))
    assert not demo.sorts_frames and not demo.segments_nodule


@pytest.mark.parametrize(
    ("fields", "error", "line"),
    [
        ({"frames": 0}, ValueError, "frames is 0; give an integer >= 1"),
        ({"frames": 2.0}, TypeError, "frames is 2.0; give an integer"),
        ({"image_size": True}, TypeError, "image_size is True; give an integer"),
        ({"image_size": (3,)}, ValueError, r"image_size is \(3,\); give a side or"),
        ({"image_size": (3, 0)}, ValueError, "an entry of image_size is 0"),
        ({"image_size": [3, 3]}, TypeError, r"image_size is \[3, 3\]; give an integer"),
    ],
)
def test_a_size_that_is_none_is_named(fields: dict, error: type, line: str) -> None:
    with pytest.raises(error, match=line):
        Mine(**fields)
