"""Tests edge_wm.noise: Philox against its published answers, the normal table, the color."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from scipy import stats

from edge_wm import noise


# ---- Philox -------------------------------------------------------------------------------
def philox_4x32(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """One block, from the definition (Salmon et al. 2011, section 3.3)."""
    x, k = list(counter), list(key)
    for _ in range(10):
        a, b = x[0] * 0xD2511F53, x[2] * 0xCD9E8D57
        x = [(b >> 32) ^ x[1] ^ k[0], b % 2**32, (a >> 32) ^ x[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return x


# Random123 1.14, tests/kat_vectors: the lines "philox4x32 10".
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_its_published_answers(counter, key, words):
    assert noise.philox(counter, key[0] | key[1] << 32).tolist() == list(words)
    assert tuple(philox_4x32(counter, key)) == words


def test_a_number_s_place_is_its_counter():
    seed, plan = 0x0123456789ABCDEF, 7
    drawn = noise.white(seed, plan, iteration=3, candidates=5, count=19)
    for k, n in ((0, 0), (4, 18), (2, 9), (3, 8)):
        words = philox_4x32((n // 8, k, 3, plan), (0x89ABCDEF, 0x01234567))
        word = words[n % 8 // 2]
        bits = np.uint16(word >> 16 if n % 2 else word & 0xFFFF)
        assert drawn[k, n] == noise.normal(np.array([bits]))[0]


def test_noise_depends_on_everything_that_names_it_and_not_on_how_much_is_drawn():
    def draw(seed=1, plan=2, iteration=3, candidates=6, count=20):
        return noise.white(seed, plan, iteration, candidates, count)

    np.testing.assert_array_equal(draw(candidates=4, count=11), draw()[:4, :11])
    for other in (draw(seed=1 + 2**32), draw(plan=3), draw(iteration=4)):
        assert (other != draw()).mean() > 0.9
    assert len(np.unique(draw())) > 110


def test_the_plan_s_number_may_grow_past_32_bits():
    np.testing.assert_array_equal(noise.white(1, 2**32 + 5, 0, 2, 8), noise.white(1, 5, 0, 2, 8))
    assert noise.rollout_seed(1, 2**32 + 5) == noise.rollout_seed(1, 5)


def test_rollout_seeds_are_of_no_iteration_and_fit_a_signed_integer():
    words = philox_4x32((0, 0, 2**32 - 1, 9), (5, 0))
    assert noise.rollout_seed(5, 9) == (words[0] | words[1] << 32) >> 1 < 2**63


# ---- normal numbers -----------------------------------------------------------------------
EVERY = noise.normal(np.arange(2**16, dtype=np.uint16)).astype(np.float64)


def test_every_normal_number_there_is():
    """All 65,536 of them: the moments, the distribution and the tail that the docstring tells."""
    assert (np.diff(EVERY) > 0).all()
    np.testing.assert_allclose(EVERY, -EVERY[::-1], atol=3e-7)
    assert abs(EVERY.mean()) < 1e-8
    assert EVERY.var() == pytest.approx(1.0, abs=2e-6)
    assert stats.kurtosis(EVERY, fisher=False) == pytest.approx(2.998, abs=5e-4)
    edges = np.arange(2**16 + 1) / 2**16
    true = stats.norm.cdf(EVERY)
    assert max((edges[1:] - true).max(), (true - edges[:-1]).max()) < 5e-5
    assert 3.9 < EVERY[-1] < noise.quantiles()[-1] < 3.97
    assert 1 / (2 * stats.norm.sf(noise.quantiles()[-1])) == pytest.approx(13_600, rel=0.01)


def test_the_table_is_the_normal_distribution_s_and_the_same_on_every_machine():
    table = noise.quantiles()
    inside = np.arange(1, 4096) / 4096
    np.testing.assert_allclose(table[1:-1], stats.norm.ppf(inside), rtol=1e-7, atol=1e-12)
    np.testing.assert_array_equal(table, -table[::-1])
    assert zlib.crc32(table.astype("<f4").tobytes()) == 0x88971699  # as made on x86-64, glibc 2.36


def test_drawn_numbers_are_independent_and_normal():
    drawn = noise.white(3, 0, 0, 4000, 24).astype(np.float64)
    assert drawn.mean() == pytest.approx(0.0, abs=0.01)
    assert drawn.var() == pytest.approx(1.0, abs=0.02)
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 0.01
    apart = np.corrcoef(drawn.T) - np.eye(24)
    assert np.abs(apart).max() < 0.08  # of 276 pairs; one standard error is 0.016
    neighbors = np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]
    assert abs(neighbors) < 0.012


# ---- color --------------------------------------------------------------------------------
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("horizon", [1, 2, 5, 12, 30, 100])
def test_colored_noise_has_the_correlation_of_its_spectrum_and_variance_one(beta, horizon):
    """Against the Fourier transform: what filtering white noise of two horizons leaves."""
    factor = noise.color(beta, horizon).astype(np.float64)
    period = 2 * horizon
    scale = np.maximum(np.fft.rfftfreq(period), 1.0 / period) ** (-0.5 * beta)
    filtered = np.fft.irfft(np.fft.rfft(np.eye(period)) * scale, n=period)[:, :horizon]
    expected = filtered.T @ filtered
    expected /= expected[0, 0]
    np.testing.assert_allclose(factor @ factor.T, expected, atol=2e-7)
    np.testing.assert_array_equal(factor, np.tril(factor))


def test_the_correlation_is_a_sum_of_cosines():
    """Term by term, as a spectrum's autocorrelation is defined."""
    horizon, beta = 32, 2.0
    frequencies = [max(min(k, 64 - k), 1) / 64 for k in range(64)]
    power = np.array([f**-beta for f in frequencies])
    expected = [
        np.sum(power * np.cos(2 * np.pi * np.arange(64) * lag / 64)) / power.sum()
        for lag in range(horizon)
    ]
    assert noise.autocorrelation(beta, horizon) == pytest.approx(expected, abs=1e-12)


def test_white_is_left_as_it_is():
    white = noise.white(1, 0, 0, 10, 12).reshape(10, 6, 2)
    np.testing.assert_array_equal(noise.colored(white, noise.color(0.0, 6)), white)


def test_coloring_is_a_product_with_the_factor():
    white = noise.white(1, 0, 0, 50, 24).reshape(50, 12, 2)
    factor = noise.color(2.0, 12)
    expected = np.einsum("hj,kja->kha", factor.astype(np.float64), white)
    np.testing.assert_allclose(noise.colored(white, factor), expected, atol=2e-6)
