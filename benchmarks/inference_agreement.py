"""How far a prepared model's answers lie from the plain model's, on the phantom's test set.

    python benchmarks/inference_agreement.py --checkpoint demo/best.ckpt

For float32 and bfloat16: the largest difference of the malignancy margin (logit 1 less logit 0)
and of the probability, and every case whose class is another one. A case whose margin exceeds the
largest difference cannot change its class; those that did are named with their margin.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from asycmst import AsyCMST
from asycmst.data.phantom import PhantomConfig
from asycmst.data.samples import PhantomDataset, split_seed
from asycmst.inference.prepare import PreparedModel, prepare_model
from asycmst.training.checkpoint import load_checkpoint


def margins(model: AsyCMST | PreparedModel, data: PhantomDataset) -> Tensor:
    """Logit 1 less logit 0 of every case, float64."""
    found = []
    with torch.no_grad():
        for items in DataLoader(data, 16):
            logits = model(items["bus"], items["ceus"]).logits.double()
            found.append(logits[:, 1] - logits[:, 0])
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="a prepared model against the plain one")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of `asycmst demo`")
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write everything as JSON to this file")
    args = parser.parse_args()
    model, meta = load_checkpoint(args.checkpoint)
    config = model.config
    if (config.frames, config.frame_size) != (8, (64, 64)):
        parser.error(f"{args.checkpoint} is of no demo: its clips are not 8 x 64 x 64")
    data = PhantomDataset(PhantomConfig.demo(), split_seed(args.seed, "test"), args.cases)
    plain = margins(model, data)
    result = {"trained_on": meta.get("trained_on"), "cases": args.cases, "seed": args.seed}
    result["median_margin"] = round(float(plain.abs().median()), 3)
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        found = margins(prepare_model(model, dtype=dtype), data)
        apart = (found - plain).abs()
        changed = ((found > 0) != (plain > 0)).nonzero().flatten().tolist()
        assert all(abs(plain[i]) <= apart.max() for i in changed)
        result[name] = {
            "largest_difference_of_margins": float(apart.max()),
            "largest_difference_of_probabilities": float(
                (found.sigmoid() - plain.sigmoid()).abs().max()
            ),
            "other_class": [
                {"case": data[i]["id"], "plain": float(plain[i]), "prepared": float(found[i])}
                for i in changed
            ],
        }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
