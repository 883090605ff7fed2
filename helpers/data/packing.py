"""Where documents lie in a packed batch. Works on position ids; knows no tokens."""

from typing import NamedTuple

import torch


class Documents(NamedTuple):
    """Where documents lie in a packed batch whose rows are laid end to end.

    starts: (documents + 1,) int32, the first token of each and the end of the last. longest: in tokens.
    """

    starts: torch.Tensor
    longest: int


def find_documents(position_ids: torch.Tensor) -> Documents:
    """The documents of a batch: each begins where position_ids, (rows, length), is 0."""
    flat = position_ids.flatten()
    begins = flat == 0
    begins[0] = True
    starts = torch.cat([begins.nonzero().flatten(), torch.tensor([len(flat)], device=flat.device)])
    return Documents(starts.int(), int(starts.diff().max()))
