"""Moving means, revival and k-means of the codebook, by hand."""

import numpy as np
import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.codebook import SMOOTHING, Codebook, CodebookUpdate, code_use, codebook_statistics, kmeans

CODES, CHANNELS = 6, 3


def run(settings, codes, batches, seed_step=0):
    """Several batches; codes are changed in place. Returns the buffers and the numbers of revived codes."""
    updates, revived = CodebookUpdate(settings, len(codes), codes.shape[1]), []
    for step, cells in enumerate(batches, seed_step):
        counts, sums = code_use(cells, torch.cdist(cells, codes).argmin(1), len(codes))
        updates.follow(codes, counts, sums)
        revived.append(int(updates.revive(codes, counts, cells, step)) if updates.revives else 0)
    return updates, revived


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_moving_means_are_those_computed_by_hand():
    codes, decay, batches = draw(CODES, CHANNELS, seed=1), 0.9, draw(5, 40, CHANNELS)
    by_hand = codes.double().numpy()
    counts = np.full(CODES, 40 / CODES)
    sums = by_hand * counts[:, None]
    for cells in batches.double().numpy():
        chosen = ((cells[:, None] - by_hand) ** 2).sum(-1).argmin(1)
        for code in range(CODES):
            members = cells[chosen == code]
            counts[code] = decay * counts[code] + (1 - decay) * len(members)
            sums[code] = decay * sums[code] + (1 - decay) * members.sum(0)
        by_hand = sums / ((counts + SMOOTHING) / (counts.sum() + CODES * SMOOTHING) * counts.sum())[:, None]
    updates, _ = run(Codebook(update="ema", ema_decay=decay), codes, batches)
    np.testing.assert_allclose(codes.numpy(), by_hand, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(updates.usage.numpy(), counts, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"revive_after": 3}, [0, 0, 1]), ({"revive_below": 0.2, "ema_decay": 0.5}, [0, 0, 1]), ({}, [0, 0, 0])],
)
@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_an_unused_code_becomes_an_encoder_output(update, settings, expected):
    """Without use, moving usage is 0.5 ** n of an even share: below 0.2 with the third batch."""
    codes = draw(CODES, CHANNELS, seed=1)
    cells = codes[:5].repeat(8, 1) + 0.01 * draw(40, CHANNELS)
    codes[5] = 50
    updates, revived = run(Codebook(update=update, **settings), codes, [cells] * 3)
    assert revived == expected
    if sum(expected):
        assert (cells == codes[5]).all(1).any()
        assert updates.usage[5].item() == pytest.approx(40 / CODES)
        torch.testing.assert_close(updates.sums[5], 40 / CODES * codes[5])


def test_revival_is_a_function_of_seed_and_step():
    def revived(seed, step):
        codes = torch.full((CODES, CHANNELS), 100.0)
        run(Codebook(revive_after=1, seed=seed), codes, draw(1, 40, CHANNELS), step)
        return codes

    assert torch.equal(revived(0, 7), revived(0, 7))
    assert not torch.equal(revived(0, 7), revived(0, 8)) and not torch.equal(revived(0, 7), revived(1, 7))
    assert len(revived(0, 7)[1:].unique(dim=0)) == CODES - 1, "no two codes take the same cell"


def test_counts_of_bfloat16_cells_are_float32():
    cells = torch.full((1000, CHANNELS), 1.0, dtype=torch.bfloat16)  # counting to 1000 in bfloat16 ends at 256
    counts, sums = code_use(cells, torch.ones(1000, dtype=torch.long), CODES)
    assert counts.tolist() == [0, 1000, 0, 0, 0, 0] and sums[1].tolist() == [1000] * CHANNELS


def test_kmeans_finds_the_centres_of_clusters():
    rng = np.random.default_rng(0)
    centres = rng.uniform(-5, 5, (20, 3))
    vectors = np.repeat(centres, 50, axis=0) + rng.normal(0, 0.01, (1000, 3))
    found = kmeans(rng.permutation(vectors).astype(np.float32), 20, seed=3)
    distance = np.linalg.norm(found[:, None] - centres, axis=-1)
    assert sorted(distance.argmin(1)) == list(range(20)) and distance.min(1).max() < 0.01
    with pytest.raises(UserError, match="1 distinct encoder outputs cannot fill 20 codes"):
        kmeans(np.ones((100, 3), np.float32), 20)


@pytest.mark.parametrize(
    ("counts", "usage", "perplexity"),
    [([5, 5, 5, 5, 0, 0, 0, 0], 0.5, 4.0), ([0, 0], 0.0, 1.0), ([3, 1], 1.0, 1.7547654)],
)
def test_codebook_statistics(counts, usage, perplexity):
    assert codebook_statistics(torch.tensor(counts)) == (usage, pytest.approx(perplexity, rel=1e-6))
