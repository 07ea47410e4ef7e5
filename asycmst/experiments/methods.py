"""The methods of Table 2, those that are here and those that are not, in the table's order."""

from typing import NamedTuple

from asycmst.network_config import NetworkConfig
from asycmst.training.networks import BUILT_IN


class Method(NamedTuple):
    """A row of a comparison.

    Attributes:
        name: in tables.
        source: who published it; None for what the paper does not compare with.
        network: its name for `asycmst fit --model`; None where it is not here.
        note: how it was brought to two clips, or why it is not here.
    """

    name: str
    source: str | None
    network: str | None
    note: str

    @property
    def config(self) -> type[NetworkConfig] | None:
        """What its network is configured by; None where it is not here."""
        return None if self.network is None else BUILT_IN[self.network].config


_FOR_IMAGES = (
    "published for images; the paper gives its encoders video inputs and does not say how"
)
_LATE = "two branches, features concatenated"

METHODS = (
    Method("R(2+1)D", "Tran et al., 2018", "r2plus1d", _LATE),
    Method("ViViT", "Arnab et al., 2021", "vivit", f"{_LATE}; factorised encoder"),
    Method("HFMD", "Black and Souvenir, 2024", None, _FOR_IMAGES),
    Method("MFT", "Roy et al., 2023", None, _FOR_IMAGES),
    Method("FC-Former", "Wu et al., 2025", None, _FOR_IMAGES),
    Method(
        "BUS-Net",
        "Gong et al., 2022",
        None,
        "the paper only names its parts (key frames, shape features, CEUS encoding), too little "
        "to build it from",
    ),
    Method(
        "DKPD",
        "Chen et al., 2021",
        None,
        "needs time-intensity curves that physicians labelled, which the data do not have",
    ),
    Method(
        "DAST",
        "F. Chen et al., 2024",
        None,
        "the paper only names its parts (attention over perfusion, guided by BUS), too little to "
        "build it from",
    ),
    Method("Early fusion", None, "early-fusion", "one stream, clips stacked as channels"),
    Method("AsyCMST", "the paper", "asycmst", "as published"),
)
"""Another one is a plug-in: a Network of your own (`asycmst.training.networks`)."""
