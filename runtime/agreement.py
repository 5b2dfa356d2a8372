"""The GAM [3.2] folded over photos: every pixel's best match in each photo, as running sums.

The affinity of all pixels of a group with all others has (N·h·w)² entries. Here it exists for two blocks of photos at a
time; what is kept is one number a pixel. A photo that joins later is compared with those before it, and they with it;
nothing that was compared before is again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.encoded_group import EncodedGroup, blocks, run_padded
from gconet.runtime.preprocess import FloatArray


class Agreement:
    """How well each pixel of an encoded group finds itself in the group's photos."""

    def __init__(self, group: EncodedGroup) -> None:
        self._group = group
        # The affinity of 4 photos with 8, 2.5 MB in bf16 at 224 pixels, stays in the cache between the matrix product
        # and the maximum. With 8 and 8 the same takes half as long again.
        self._queries = max(1, group.block // 2)
        self._sums: NDArray[np.float64] = np.zeros((0, 0))  # N, h·w: best matches, summed over the photos compared with

    def compare_new(self) -> None:
        """Compare the photos that were added since the last time, at most a block, with all and all with them."""
        group, start, stop = self._group, len(self._sums), len(self._group)
        sums = np.zeros((stop, group.pixel_bias[0].size))
        sums[:start] = self._sums if start else 0
        if group.affine:
            query, features = (group.read(name, start, stop) for name in ("query", "features"))
            for first, last in blocks(start, group.block):
                sums[first:last] += self._best(group.read("query", first, last), features)
                sums[start:] += self._best(query, group.read("features", first, last))
            sums[start:] += self._best(query, features)
        self._sums = sums

    def attention(self) -> FloatArray:
        """(N, h·w), each photo summing to 1."""
        logits = self._sums / len(self._sums) + np.stack(self._group.pixel_bias)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)

    def consensus(self) -> FloatArray:
        """(C,): features pooled by the attention, projected."""
        group, attention = self._group, self.attention()
        total: NDArray[np.float64] | float = 0.0
        for start, stop in blocks(len(group), group.block):
            features = group.read("features", start, stop)
            inputs = {"features": features}
            if group.affine:
                inputs["attention"] = attention[start:stop].reshape(len(features), 1, *features.shape[2:])
            # The projection has a bias and is linear: the mean of the blocks' is that of the whole.
            pooled = group.session.run("pool", inputs)["consensus"].reshape(-1)
            total = total + pooled.astype(np.float64) * (len(features) / len(group))
        return np.asarray(total, np.float32)

    def _best(self, query: NDArray[Any], features: NDArray[Any]) -> NDArray[np.float64]:
        """(q, h·w): best match of each pixel of q photos in each of n photos, summed over those."""
        sums = np.zeros((len(query), query[0, 0].size))
        lengths = {"query": self._queries, "features": self._group.block}
        for first, last in blocks(len(query), self._queries):
            inputs = {"query": query[first:last], "features": features}
            best = run_padded(self._group.session, "agree", inputs, lengths)["best_match"]
            sums[first:last] = best[: last - first, : len(features)].sum(axis=1, dtype=np.float64)
        return sums
