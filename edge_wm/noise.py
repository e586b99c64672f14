"""The planner's random numbers: the same bits in Python, in C++, and on every machine.

    seed, plan, iteration, candidate ─► Philox ─► 16 bits ─► table ─► standard normal ─► color

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") has no state: it is a
function from a counter and a key to 128 random bits. The counter holds where a number belongs, so
a candidate's noise depends neither on how many others there are nor on who is drawn first.

The way to a normal number is a table and a straight line, because a logarithm or a cosine may
differ in its last bit between two machines. `cpp/planner/noise.h` is the same arithmetic, in the
same order; nothing here may be reordered, and no product may be fused with a sum.

The one invariant: number `n` of candidate `k` is a function of (seed, plan, iteration, k, n).
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edge_wm.types import Float32

UInt16 = npt.NDArray[np.uint16]
UInt64 = npt.NDArray[np.uint64]

# Philox4x32-10: multipliers, and what the key grows by each round (Salmon et al. 2011, table 2).
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF

# In the place of the iteration: the block that a plan's rollouts are seeded from.
NO_ITERATION = WORD

# Of the 16 bits that a number is made of. 4096 cells: 16 KiB of table, half of a small
# processor's first-level cache.
CELL_BITS = 12
REST_BITS = 4


def philox(counter: tuple[npt.ArrayLike, ...], key: int) -> UInt64:
    """Four words of 32 bits, (4, ...), for the counters; the words of `counter` are broadcast.

    key: 64 bits, its low word is the first.
    """
    x0, x1, x2, x3 = np.broadcast_arrays(*(np.asarray(word, np.uint64) for word in counter))
    k0, k1 = key & WORD, key >> 32
    for _ in range(ROUNDS):
        left, right = x0 * np.uint64(MULTIPLIERS[0]), x2 * np.uint64(MULTIPLIERS[1])
        x0, x1 = (right >> np.uint64(32)) ^ x1 ^ np.uint64(k0), right & np.uint64(WORD)
        x2, x3 = (left >> np.uint64(32)) ^ x3 ^ np.uint64(k1), left & np.uint64(WORD)
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return np.stack((x0, x1, x2, x3))


def rollout_seed(seed: int, plan: int) -> int:
    """The seed of a plan's rollouts, below 2^63."""
    words = philox((0, 0, NO_ITERATION, plan & WORD), seed)
    return ((int(words[1]) << 32) | int(words[0])) >> 1


def white(seed: int, plan: int, iteration: int, candidates: int, count: int) -> Float32:
    """(K, count): `count` independent normal numbers for each of K candidates.

    A block has eight: of each word first the low half, then the high one. (16 bits are enough: it
    is the table's straight lines, not they, that limit how normal the numbers are.)
    """
    blocks = np.arange(-(-count // 8))
    counter = (blocks, np.arange(candidates)[:, None], iteration, plan & WORD)
    words = np.moveaxis(philox(counter, seed), 0, -1)
    halves = np.stack((words & np.uint64(0xFFFF), words >> np.uint64(16)), axis=-1)
    return normal(halves.reshape(candidates, -1)[:, :count].astype(np.uint16))


def normal(bits: UInt16) -> Float32:
    """A standard normal number for each 16 random bits: `quantiles` between its cell's edges.

    The upper bits say which cell, the lower ones where in it (the middle of a sixteenth, so that
    the complement gives the opposite number but for rounding).
    """
    table = quantiles()
    cell = bits >> np.uint16(REST_BITS)
    rest = (bits & np.uint16((1 << REST_BITS) - 1)).astype(np.float32)
    share = (rest + np.float32(0.5)) * np.float32(2.0**-REST_BITS)
    below, above = table[cell], table[cell + np.uint16(1)]
    drawn: Float32 = below + share * (above - below)
    return drawn


@cache
def quantiles() -> Float32:
    """(4097,): the normal distribution's quantiles of i / 4096, read-only.

    The ends, which would be infinite, are where they make the variance 1: at 3.96. So the
    numbers are the normal distribution's but for the last cell at either side, probability 1 /
    4096 each, where they are uniform from 3.49 to 3.96: no number lies beyond (of true normal
    numbers one in 13,600 does), the kurtosis is 2.998 instead of 3, and the distribution
    function is within 4e-5 of the true one.
    """
    cells = 1 << CELL_BITS
    inverse = NormalDist().inv_cdf
    upper = [0.0, *(-inverse(i / cells) for i in range(cells // 2 - 1, 0, -1))]
    # A cell that is uniform from a to b has the second moment (a^2 + a b + b^2) / 3, and the
    # mean over the upper half of the cells must be 1.
    inner = math.fsum(a * a + a * b + b * b for a, b in pairwise(upper)) / 3
    edge = upper[-1]
    missing = 3.0 * (cells / 2 - inner) - edge * edge  # = end * edge + end^2
    end = -0.5 * edge + math.sqrt(0.25 * edge * edge + missing)
    half = np.array([*upper, end])
    return _read_only(np.concatenate((-half[:0:-1], half)).astype(np.float32))


def autocorrelation(beta: float, horizon: int) -> list[float]:
    """Of noise with a power spectrum of 1 / f^beta: between steps 0, 1, .. horizon - 1 apart.

    Timmer and Koenig 1995, "On generating power law noise": frequency f has the power f^-beta,
    here also f = 0, as if it were the lowest one. Such noise is periodic, so the period is twice
    the horizon: else the last action would be about the first one again, which cost 0.1 of 6.5 on
    a unicycle among pillars (2026-11-22).
    """
    period = 2 * horizon
    power = [max(min(k, period - k), 1) ** -beta for k in range(period)]
    total = math.fsum(power)
    cosine = [math.cos(math.pi * k / horizon) for k in range(period)]
    return [
        math.fsum(p * cosine[k * lag % period] for k, p in enumerate(power)) / total
        for lag in range(horizon)
    ]


@cache
def color(beta: float, horizon: int) -> Float32:
    """(H, H), lower triangle: times H white numbers it gives noise of variance 1 whose power
    falls with frequency as 1 / f^beta. Read-only.

    It is the Cholesky factor of the noise's autocorrelation. The usual way, a Fourier transform
    of 2 H white numbers of which half are thrown away, has the same distribution and needs twice
    the random numbers, which are what sampling costs. beta = 0 gives the identity: white noise.
    """
    if beta == 0.0:
        return _read_only(np.eye(horizon, dtype=np.float32))
    correlation = autocorrelation(beta, horizon)
    # Golub and Van Loan, "Matrix computations", algorithm 4.2.1, in plain floats: a library's
    # factorization may differ in its last bits between two machines.
    rows: list[list[float]] = []
    for i in range(horizon):
        row: list[float] = []
        for j in range(i):
            done = math.fsum(a * b for a, b in zip(row, rows[j][:j], strict=True))
            row.append((correlation[i - j] - done) / rows[j][j])
        row.append(math.sqrt(correlation[0] - math.fsum(a * a for a in row)))
        rows.append(row)
    return _read_only(np.array([row + [0.0] * (horizon - len(row)) for row in rows], np.float32))


def colored(white_noise: Float32, factor: Float32) -> Float32:
    """(K, H, A) colored along the horizon; one step after the other, sums from the first on.

    white_noise: (K, H, A); factor: (H, H), see `color`.
    """
    noise = np.zeros_like(white_noise)
    for j in range(len(factor)):
        noise[:, j:] += factor[j:, j, None] * white_noise[:, j : j + 1]
    return noise


def _read_only(values: Float32) -> Float32:
    values.flags.writeable = False
    return values
