"""Table 2's rows: what is here is a network of the trainer, what is not has its reason."""

from asycmst.experiments.methods import METHODS
from asycmst.training.networks import name_of


def test_the_rows_are_the_tables() -> None:
    published = [method.name for method in METHODS if method.source is not None]
    assert published == [
        "R(2+1)D",
        "ViViT",
        "HFMD",
        "MFT",
        "FC-Former",
        "BUS-Net",
        "DKPD",
        "DAST",
        "AsyCMST",
    ]


def test_what_is_here_can_be_trained_and_what_is_not_says_why() -> None:
    for method in METHODS:
        assert len(method.note) > 10
        if method.config is not None:
            assert name_of(method.config.demo()) == method.network
    absent = [method.name for method in METHODS if method.network is None]
    assert absent == ["HFMD", "MFT", "FC-Former", "BUS-Net", "DKPD", "DAST"]
    assert all(method.config is None for method in METHODS if method.name in absent)
