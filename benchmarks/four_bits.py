"""4-bit products of one row on this GPU, ours and bitsandbytes': `python -m benchmarks.four_bits [--json FILE]`.

The shapes of Llama-8B's and Falcon-7B's layers. Each product is timed over as many different weights as a GPU's cache
cannot hold, in one CUDA graph, both kinds in turn; ours adds LoRA's second product, theirs does not.
"""

import argparse
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit

from helpers.generate.four_bits import FourBits, four_bit_product
from helpers.machine.hardware import this_machine
from helpers.machine.paths import write_json
from helpers.machine.versions import versions

RESULTS = Path(__file__).resolve().parent / "results"
SHAPES = ((4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336), (4672, 4544), (18176, 4544), (4544, 18176))
BYTES, MOST, ROUNDS, RANK = 3e8, 40, 5, 16  # of weights, layers, times, r


def microseconds(calls: list[Callable[[], object]]) -> float:
    """The shortest time of a call, of ROUNDS times all of them as one graph."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    taken = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        taken.append(begin.elapsed_time(end) / len(calls) * 1000)
    return min(taken)


def of_shape(height: int, width: int) -> dict:
    """Microseconds of both for a weight (height, width), and the speed at which ours reads it."""
    size = height * width / 2
    count = min(MOST, max(4, int(BYTES / size)))
    made = [Linear4bit(width, height, False, torch.bfloat16, quant_type="nf4") for _ in range(count)]
    layers = [layer.cuda().requires_grad_(False) for layer in made]
    x, low, b = (
        torch.randn(*shape, device="cuda", dtype=torch.bfloat16) for shape in ((1, width), (1, RANK), (height, RANK))
    )
    theirs = microseconds([lambda layer=layer: layer(x) for layer in layers])
    four_bits = FourBits()
    with four_bits.in_place(torch.nn.ModuleList(layers)):
        if not four_bits.serves(layers[0], x):
            raise SystemExit("this GPU or PyTorch does not run the kernel")
        ours = microseconds([lambda layer=layer: four_bit_product(layer, x, low, b, 2.0) for layer in layers])
    speed = size * (1 + 1 / 32) / ours / 1000
    return {
        "shape": [height, width],
        "bitsandbytes_us": round(theirs, 1),
        "ours_us": round(ours, 1),
        "ours_gb_s": round(speed),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu-four-bits.json")
    chosen = parser.parse_args()
    rows = []
    for shape in SHAPES:
        rows.append(of_shape(*shape))
        print(rows[-1], flush=True)
    day = {"date": str(date.today()), "machine": this_machine()._asdict(), "versions": versions()}
    write_json(chosen.json, {**day, "products": rows})


if __name__ == "__main__":
    main()
