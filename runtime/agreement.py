"""The GAM [3.2] folded over photos: every pixel's best match in each photo, as running sums.

The affinity of all pixels of a group with all others has (N·h·w)² entries. Here it exists for two blocks of photos at a
time; what is kept is one number a pixel. A photo that joins later is compared with those before it, and they with it;
nothing that was compared before is again.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gconet.runtime.encoded_group import EncodedGroup, blocks, run_padded
from gconet.runtime.preprocess import FloatArray


class _Block(NamedTuple):
    """What photos are compared by: both (n, C, h, w)."""

    photos: slice
    query: NDArray[Any]
    features: NDArray[Any]


class Agreement:
    """How well each pixel of an encoded group finds itself in the group's photos."""

    def __init__(self, group: EncodedGroup) -> None:
        self._group = group
        # The affinity of 4 photos with 8, 2.5 MB in bf16 at 224 pixels, stays in the cache between the matrix product
        # and the maximum. With 8 and 8 the same takes half as long again.
        self._queries = max(1, group.block // 2)
        self._sums: NDArray[np.float64] = np.zeros((0, 0))  # N, h·w: best matches, summed over the photos compared with

    def compare_new(self) -> None:
        """Compare the photos that were added since the last time with all, and all with them.

        What was added stays in memory meanwhile, and what was there before is read once: many at a time are faster.
        """
        group, start, stop = self._group, len(self._sums), len(self._group)
        if start == stop:
            return
        sums = np.zeros((stop, group.pixel_bias[0].size))
        sums[:start] = self._sums if start else 0
        if group.affine:
            new = [self._read(start + first, start + last) for first, last in blocks(stop - start, group.block)]
            for first, last in blocks(start, group.block):
                old = self._read(first, last)
                for other in new:
                    self._compare(old, other, sums)
                    self._compare(other, old, sums)
            for one, other in itertools.product(new, repeat=2):
                self._compare(one, other, sums)
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

    def _read(self, start: int, stop: int) -> _Block:
        query, features = (self._group.read(name, start, stop) for name in ("query", "features"))
        return _Block(slice(start, stop), query, features)

    def _compare(self, these: _Block, others: _Block, sums: NDArray[np.float64]) -> None:
        """Add the best match of each pixel of these photos in each of the others to `sums`, in place."""
        sums[these.photos] += self._best(these.query, others.features)

    def _best(self, query: NDArray[Any], features: NDArray[Any]) -> NDArray[np.float64]:
        """(q, h·w): best match of each pixel of q photos in each of n photos, summed over those."""
        sums = np.zeros((len(query), query[0, 0].size))
        lengths = {"query": self._queries, "features": self._group.block}
        for first, last in blocks(len(query), self._queries):
            inputs = {"query": query[first:last], "features": features}
            best = run_padded(self._group.session, "agree", inputs, lengths)["best_match"]
            sums[first:last] = best[: last - first, : len(features)].sum(axis=1, dtype=np.float64)
        return sums
