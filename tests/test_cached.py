"""Items of a cache are what the sources show, in the shapes of every other dataset."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from asycmst.data.cache import prepare, read_cache
from asycmst.data.cached import CachedDataset
from asycmst.data.manifest import Case
from asycmst.data.samples import Item

FRAMES, SIZE = 4, (10, 14)


def make(folder: Path, mask: bool = True) -> Path:
    """Two cases of grey BUS and coloured CEUS at the cache's own size; "a" may have masks."""
    cases = []
    for index, name in enumerate("ab"):
        generator = np.random.default_rng(index)
        np.save(folder / f"{name}b.npy", generator.integers(0, 256, (7, *SIZE), dtype=np.uint8))
        np.save(folder / f"{name}c.npy", generator.integers(0, 256, (7, *SIZE, 3), dtype=np.uint8))
        masks = folder / "m" if mask and name == "a" else None
        cases.append(
            Case(name, folder / f"{name}b.npy", folder / f"{name}c.npy", index, mask=masks)
        )
    if mask:
        (folder / "m").mkdir()
        for number in (2, 5):
            image = np.zeros(SIZE, np.uint8)
            image[number : number + 3, 1:6] = 255
            Image.fromarray(image).save(folder / "m" / f"{number:05d}.png")
    prepare(cases, folder / "cache", frames=FRAMES, size=SIZE)
    return folder / "cache"


def test_items_are_the_sources(tmp_path: Path) -> None:
    data = CachedDataset(make(tmp_path))
    assert len(data) == 2 and data.labels().tolist() == [0, 1] and data.labels().dtype == np.int64
    item = data[0]
    assert set(item) == set(Item.__annotations__)
    # Slots 0, 2, 4, 6 of 7 frames: the mask of frame 5 draws the third slot to it.
    indices = [0, 2, 5, 6]
    bus, ceus = (np.load(tmp_path / f"a{kind}.npy")[indices] for kind in "bc")
    assert (item["bus"] == torch.from_numpy(bus).float().div(255)).all()
    assert item["bus"].shape == (3, FRAMES, *SIZE) and item["bus"].is_contiguous()
    assert (item["ceus"] == torch.from_numpy(ceus).permute(3, 0, 1, 2).float().div(255)).all()
    assert item["mask_valid"].tolist() == [False, True, True, False]
    expected = torch.zeros(FRAMES, *SIZE, dtype=torch.bool)
    expected[1, 2:5, 1:6] = expected[2, 5:8, 1:6] = True
    assert (item["mask"] == expected).all() and item["mask"].dtype == torch.bool
    assert (item["id"], item["label"].item(), item["label"].dtype) == ("a", 0, torch.int64)
    assert data.nodule_share() == pytest.approx(15 / 140)
    bare = data[1]
    assert not bare["mask_valid"].any() and not bare["mask"].any()
    assert default_collate([item, bare])["bus"].shape == (2, 3, FRAMES, *SIZE)


def test_grey_clips_take_a_third_of_the_disk(tmp_path: Path) -> None:
    entry = read_cache(make(tmp_path)).entries[0]
    sizes = [np.load(entry / f"{kind}.npy").shape[0] for kind in ("bus", "ceus")]
    assert sizes == [1, 3]


def test_cases_are_chosen_by_id(tmp_path: Path) -> None:
    folder = make(tmp_path, mask=False)
    data = CachedDataset(folder, ["b"])
    assert data[0]["id"] == "b" and data.labels().tolist() == [1] and data.case(0).id == "b"
    assert np.isnan(data.nodule_share()) and data.times(0) == (None, None)
    with pytest.raises(ValueError, match=r"1 of 2 cases are not in the cache .*such as 'z'"):
        CachedDataset(folder, ["b", "z"])
    with pytest.raises(ValueError, match="asked for twice"):
        CachedDataset(folder, ["b", "b"])
    with pytest.raises(IndexError):
        data[1]


@pytest.mark.parametrize("name", ["bus.npy", "ceus.npy", "mask.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone", "other shape", "objects"])
def test_a_damaged_file_names_its_case(tmp_path: Path, name: str, damage: str) -> None:
    folder = make(tmp_path)
    path = read_cache(folder).entries[0] / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "gone":
        path.unlink()
    else:
        kind = object if damage == "objects" else np.uint8
        np.save(path, np.zeros((3, 2, 2), kind), allow_pickle=True)
    with pytest.raises(
        ValueError, match=rf"case a: its {name} .* missing or damaged: run the same"
    ):
        CachedDataset(folder)[0]
