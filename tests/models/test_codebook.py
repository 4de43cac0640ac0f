import numpy as np
import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.codebook import (
    SMOOTHING,
    Codebook,
    CodebookKeeper,
    code_use,
    codebook_statistics,
    kmeans,
    step_generator,
)

CODES, CHANNELS = 6, 3


def nearest(codes, cells):
    return torch.cdist(cells, codes).argmin(1)


def run(settings, codes, batches):
    """Several batches through a keeper; codes are changed in place. Returns the keeper and how many were revived."""
    keeper, revived = CodebookKeeper(settings, len(codes), codes.shape[1]), []
    for step, cells in enumerate(batches):
        use = code_use(cells, nearest(codes, cells), len(codes))
        keeper.follow(codes, use)
        revived.append(int(keeper.revive(codes, use, cells, step)) if keeper.revives else 0)
    return keeper, revived


def batches(count=5, cells=40, seed=0):
    return list(torch.randn(count, cells, CHANNELS, generator=torch.Generator().manual_seed(seed)))


def around(codes):
    """Eight cells near each code."""
    return codes.repeat(8, 1) + 0.01 * torch.randn(8 * len(codes), CHANNELS, generator=torch.Generator().manual_seed(2))


def start(seed=1):
    return torch.randn(CODES, CHANNELS, generator=torch.Generator().manual_seed(seed))


def test_moving_means_are_those_computed_by_hand():
    codes, decay = start(), 0.9
    by_hand = codes.double().numpy()
    counts = np.full(CODES, 40 / CODES)
    sums = by_hand * counts[:, None]
    for cells in batches():
        x = cells.double().numpy()
        chosen = ((x[:, None] - by_hand) ** 2).sum(-1).argmin(1)
        for code in range(CODES):
            members = x[chosen == code]
            counts[code] = decay * counts[code] + (1 - decay) * len(members)
            sums[code] = decay * sums[code] + (1 - decay) * members.sum(0)
        total = counts.sum()
        by_hand = sums / ((counts + SMOOTHING) / (total + CODES * SMOOTHING) * total)[:, None]
    keeper, _ = run(Codebook(update="ema", ema_decay=decay), codes, batches())
    np.testing.assert_allclose(codes.numpy(), by_hand, atol=1e-5)
    np.testing.assert_allclose(keeper.usage.numpy(), counts, rtol=1e-5)
    assert keeper.usage.sum().item() == pytest.approx(40, rel=1e-5)


def test_moving_means_come_to_the_means_of_clusters():
    centres = 5 * start(3)
    cells = (centres.repeat(20, 1) + 0.01 * torch.randn(20 * CODES, CHANNELS)).float()
    codes = centres + 0.5
    run(Codebook(update="ema", ema_decay=0.5), codes, [cells] * 30)
    torch.testing.assert_close(codes, cells.reshape(20, CODES, CHANNELS).mean(0), atol=1e-3, rtol=0)


def test_a_code_that_is_not_chosen_stays_where_it_is():
    codes = start()
    codes[2] = 100
    run(Codebook(update="ema", ema_decay=0.9), codes, batches(20))
    torch.testing.assert_close(codes[2], torch.full((CHANNELS,), 100.0), atol=0.05, rtol=0)


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_a_dead_code_comes_back_as_an_encoder_output_after_so_many_batches(update):
    codes = start()
    codes[2], codes[4] = 100, -100
    data = batches(3)
    _, revived = run(Codebook(update=update, revive_after=3), codes[:], data)
    assert revived == [0, 0, 2]
    for code in (2, 4):
        assert (data[2] == codes[code]).all(1).any(), "a cell of the last batch"
    assert not torch.equal(codes[2], codes[4])


def test_revival_leaves_living_codes_alone_and_revived_ones_in_use():
    codes = start()
    data = around(codes[:5])
    codes[5] = 100
    before = codes.clone()
    _, revived = run(Codebook(revive_after=1), codes, [data] * 4)
    assert revived == [1, 0, 0, 0]
    assert torch.equal(codes[:5], before[:5])


def test_a_code_of_little_use_comes_back_when_its_moving_usage_is_low():
    """Even share 40 / 6 cells: without any, usage is 0.5 ** n of it, below 0.2 with the third batch."""
    codes = start()
    data = around(codes[:5])
    codes[5] = 50
    keeper, revived = run(Codebook(revive_below=0.2, ema_decay=0.5), codes, [data] * 3)
    assert revived == [0, 0, 1]
    assert keeper.usage[5].item() == pytest.approx(40 / CODES), "as if it had had an even share"


def test_revival_is_a_function_of_seed_and_step():
    def revived(seed, step):
        codes, cells = torch.full((CODES, CHANNELS), 100.0), batches(1)[0]
        keeper = CodebookKeeper(Codebook(revive_after=1, seed=seed), CODES, CHANNELS)
        use = code_use(cells, torch.zeros(40, dtype=torch.long), CODES)
        keeper.follow(codes, use)
        keeper.revive(codes, use, cells, step)
        return codes

    assert torch.equal(revived(0, 7), revived(0, 7))
    assert not torch.equal(revived(0, 7), revived(0, 8))
    assert not torch.equal(revived(0, 7), revived(1, 7))
    assert len(revived(0, 7)[1:].unique(dim=0)) == CODES - 1, "no two take the same cell"
    assert not torch.equal(*(torch.rand(1, generator=step_generator(0, step)) for step in (1, 2)))


def test_more_dead_codes_than_cells_share_them():
    codes, cells = torch.full((CODES, CHANNELS), 100.0), batches(1)[0][:2]
    keeper = CodebookKeeper(Codebook(revive_after=1), CODES, CHANNELS)
    use = code_use(cells, torch.zeros(2, dtype=torch.long), CODES)
    keeper.follow(codes, use)
    assert keeper.revive(codes, use, cells, 0) == CODES - 1
    assert len(codes[1:].unique(dim=0)) == 2


def test_a_revived_code_stays_put_while_nothing_chooses_it():
    """Even share 40 / 6: its sums have to be those of so many copies of the cell."""
    codes = start()
    codes[5] = 100
    settings, data = Codebook(update="ema", ema_decay=0.8, revive_after=1), around(codes[:5])
    keeper, revived = run(settings, codes, [data])
    assert revived == [1]
    cell = codes[5].clone()
    assert (data == cell).all(1).any()
    torch.testing.assert_close(keeper.sums[5], 40 / CODES * cell)
    others = torch.arange(40) % 5
    for _ in range(3):
        keeper.follow(codes, code_use(data, others, CODES))
    torch.testing.assert_close(codes[5], cell, rtol=1e-4, atol=1e-4)


def test_counts_are_smoothed_by_laplace():
    """Counts of the size of the smoothing: a code moves towards 0 by what its own count lacks, not by a lower limit."""
    keeper = CodebookKeeper(Codebook(update="ema", ema_decay=0.5), CODES, CHANNELS)
    counts, sums = np.array([1e-4, 2e-4, 5e-5, 1e-4, 1.0, 3.0]), start().double().numpy()
    keeper.usage.copy_(torch.from_numpy(counts))
    keeper.sums.copy_(torch.from_numpy(sums))
    codes = torch.zeros(CODES, CHANNELS)
    keeper.follow(codes, code_use(torch.zeros(0, CHANNELS), torch.zeros(0, dtype=torch.long), CODES))
    total = 0.5 * counts.sum()
    smoothed = (0.5 * counts + 1e-5) * total / (total + 6e-5)
    np.testing.assert_allclose(codes.numpy(), 0.5 * sums / smoothed[:, None], rtol=1e-4)
    assert (smoothed[:4] > 1.08 * 0.5 * counts[:4]).all(), "it shows"


@pytest.mark.parametrize("cells", [4, 40])
def test_revival_sends_numbers_of_as_many_cells_as_there_are_codes(monkeypatch, cells):
    sent, to = [], torch.Tensor.to

    def counted(tensor, *args, **named):
        sent.append(len(tensor))
        return to(tensor, *args, **named)

    monkeypatch.setattr(torch.Tensor, "to", counted)
    codes, batch = torch.full((CODES, CHANNELS), 100.0), batches(1, cells)[0]
    keeper = CodebookKeeper(Codebook(revive_after=1), CODES, CHANNELS)
    use = code_use(batch, torch.zeros(cells, dtype=torch.long), CODES)
    keeper.follow(codes, use)
    keeper.revive(codes, use, batch, 0)
    assert sent == [min(cells, CODES)]


def test_statistics_of_bfloat16_cells_are_float32():
    cells = torch.full((1000, CHANNELS), 1.0, dtype=torch.bfloat16)  # counting to 1000 in bfloat16 ends at 256
    use = code_use(cells, torch.ones(1000, dtype=torch.long), CODES)
    assert use.counts.tolist() == [0, 1000, 0, 0, 0, 0] and use.sums[1].tolist() == [1000] * CHANNELS


def test_the_published_way_keeps_nothing():
    assert not CodebookKeeper(Codebook(), CODES, CHANNELS).state_dict()
    kept = CodebookKeeper(Codebook(update="ema", revive_after=3, revive_below=0.1), CODES, CHANNELS).state_dict()
    assert set(kept) == {"usage", "sums", "idle"}


@pytest.mark.parametrize(
    "wrong", [{"ema_decay": 1.0}, {"ema_decay": 0.0}, {"revive_below": 1.0}, {"revive_after": -1}, {"warmup": -1}]
)
def test_settings_that_make_no_sense_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Codebook(**wrong)


def test_kmeans_finds_the_centres_of_clusters():
    rng = np.random.default_rng(0)
    centres = rng.uniform(-5, 5, (20, 3))
    vectors = np.repeat(centres, 50, axis=0) + rng.normal(0, 0.01, (1000, 3))
    found = kmeans(rng.permutation(vectors).astype(np.float32), 20, seed=3)
    distance = np.linalg.norm(found[:, None] - centres, axis=-1)
    assert sorted(distance.argmin(1)) == list(range(20))
    assert distance.min(1).max() < 0.01


@pytest.mark.parametrize(
    ("counts", "usage", "perplexity"),
    [([5, 5, 5, 5, 0, 0, 0, 0], 0.5, 4.0), ([9, 0], 0.5, 1.0), ([0, 0], 0.0, 1.0), ([3, 1], 1.0, 4 / 3**0.75)],
)
def test_codebook_statistics(counts, usage, perplexity):
    statistics = codebook_statistics(torch.tensor(counts))
    assert statistics.usage == usage
    assert statistics.perplexity == pytest.approx(perplexity, rel=1e-9)
