"""AsyCMST: asymmetric cross-modal spatio-temporal attention for paired BUS and CEUS clips.

The names below are loaded on first use, so that `import asycmst` needs neither torch nor MONAI.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asycmst.authors import load_authors_state_dict
    from asycmst.config import AsyCMSTConfig
    from asycmst.losses import AsyCMSTLoss, AsyCMSTLosses
    from asycmst.model import AsyCMST, AsyCMSTOutput
    from asycmst.saliency.config import SaliencyConfig
    from asycmst.saliency.loss import SaliencyLoss
    from asycmst.saliency.model import SaliencyDualAttention

    __version__: str

__all__ = [
    "AsyCMST",
    "AsyCMSTConfig",
    "AsyCMSTLoss",
    "AsyCMSTLosses",
    "AsyCMSTOutput",
    "SaliencyConfig",
    "SaliencyDualAttention",
    "SaliencyLoss",
    "__version__",
    "load_authors_state_dict",
]

_ROOMS = {
    "AsyCMST": "asycmst.model",
    "AsyCMSTConfig": "asycmst.config",
    "AsyCMSTLoss": "asycmst.losses",
    "AsyCMSTLosses": "asycmst.losses",
    "AsyCMSTOutput": "asycmst.model",
    "SaliencyConfig": "asycmst.saliency.config",
    "SaliencyDualAttention": "asycmst.saliency.model",
    "SaliencyLoss": "asycmst.saliency.loss",
    "load_authors_state_dict": "asycmst.authors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("asycmst")
    if name not in _ROOMS:
        raise AttributeError(f"module 'asycmst' has no attribute {name!r}; it offers {__all__}")
    try:
        return getattr(importlib.import_module(_ROOMS[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "monai":
            raise
        message = f"asycmst.{name} needs MONAI: install it by pip install 'asycmst[train]'"
        raise ModuleNotFoundError(message, name="monai") from error


def __dir__() -> list[str]:
    return sorted(__all__)
