"""Centres of the phantom: scanners that show one tissue with other gain, speckle, resolution."""

import numpy as np
import pytest
from numpy.typing import NDArray

from asycmst.data.phantom import PhantomConfig, PhantomSample, make_phantom
from asycmst.data.phantom_bmode import Scanner


def patient(**scanner: float) -> PhantomSample:
    return make_phantom(PhantomConfig(frames=2, scanner=Scanner(**scanner)), 3, 1)  # type: ignore[arg-type]


def tissue(sample: PhantomSample) -> NDArray[np.float64]:
    """Grey values of a strip between the fasciae, without the nodule, in units of white."""
    strip = sample.bus[0].astype(np.float64) / 255
    strip[sample.mask[0]] = np.nan
    return strip[14:50]


def test_another_scanner_sees_the_same_patient() -> None:
    usual, other = patient(), patient(gain_db=4.0, dynamic_range_db=60.0, psf=1.5, looks=3)
    assert (usual.bus != other.bus).mean() > 0.9
    for name in ("ceus", "mask", "decoy_mask", "label", "times", "latents"):
        np.testing.assert_equal(getattr(usual, name), getattr(other, name), err_msg=name)


def test_gain_moves_the_grey_level() -> None:
    change = np.nanmean(tissue(patient(gain_db=4.5))) - np.nanmean(tissue(patient()))
    assert change == pytest.approx(4.5 / 45, abs=0.01)


def test_a_wider_dynamic_range_has_less_contrast() -> None:
    assert np.nanstd(tissue(patient(dynamic_range_db=60.0))) < 0.85 * np.nanstd(tissue(patient()))


def test_more_looks_have_less_speckle() -> None:
    one, four = (np.nanstd(tissue(patient(looks=looks))) for looks in (1, 4))
    assert four < 0.7 * one


def test_a_wider_point_spread_has_coarser_speckle() -> None:
    def likeness(psf: float) -> float:
        grey = tissue(patient(psf=psf))
        left, right = grey[:, :-2].ravel(), grey[:, 2:].ravel()
        known = ~np.isnan(left + right)
        return float(np.corrcoef(left[known], right[known])[0, 1])

    assert likeness(0.6) + 0.15 < likeness(1.0) < likeness(1.6) - 0.1


@pytest.mark.parametrize(
    "fields",
    [{"gain_db": float("nan")}, {"dynamic_range_db": 0.0}, {"psf": 0.4}, {"looks": 0}],
)
def test_values_that_are_no_scanner_are_refused_by_name(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        Scanner(**fields)  # type: ignore[arg-type]
