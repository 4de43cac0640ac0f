"""The noise schedule and the samplers against published numbers and closed forms."""

import pytest
import torch
from diffusers import DDIMScheduler

from difftalk_pl.errors import UserError
from difftalk_pl.models.schedule import SCHEDULERS, NoiseSchedule, sample

SCHEDULE = NoiseSchedule()
ALPHA = SCHEDULE.alphas_cumprod
ENDS_AT_LEAST_NOISE = {"ddim", "pndm", "deis"}  # the others end without noise
SHAPE = (2, 3, 8, 8)


def cases(*numbers):
    """Every scheduler with every number of steps, without those that pndm refuses."""
    return [(name, n) for name in ("ddim", *SCHEDULERS) for n in numbers if name != "pndm" or 1000 % n == 0]


def tensor(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X_START, NOISE, KNOWN = tensor(0), tensor(1), tensor(2)


def q_sample(x_start, noise, t):
    """The forward process; between whole timesteps sigma is interpolated, as Euler's linspace does."""
    sigmas = ((1 - ALPHA) / ALPHA).sqrt()
    low = t.long()
    high = (low + 1).clamp(max=999)
    sigma = (sigmas[low] + (t - low) * (sigmas[high] - sigmas[low])).view(-1, 1, 1, 1)
    return (x_start + sigma * noise) / (1 + sigma**2).sqrt(), sigma


def perfect(x_start):
    def predict(z_t, t):
        _, sigma = q_sample(x_start, x_start, t)
        return (z_t * (1 + sigma**2).sqrt() - x_start) / sigma

    return predict


def analytic(z_t, t):
    return torch.tanh(0.3 * z_t + t.double().view(-1, 1, 1, 1) / 1000)


@pytest.mark.oracle
def test_released_schedule(golden, record_difference):
    expected = golden("ddim_eta0")
    record_difference("noise schedule: betas", (SCHEDULE.betas - expected["betas"]).abs().max(), 1e-10)
    record_difference("noise schedule: alphas_cumprod", (ALPHA - expected["alphas_cumprod"]).abs().max(), 1e-10)


@pytest.mark.oracle
@pytest.mark.parametrize("steps", [10, 50, 200])
def test_ddim_equals_the_published_sampler(golden, record_difference, steps):
    expected = golden("ddim_eta0")
    scheduler = SCHEDULE.scheduler("ddim")
    result = sample(analytic, expected["x_T"].double(), scheduler=scheduler, steps=steps)
    record_difference(f"DDIM, {steps} steps", (result - expected[f"x0_{steps}"]).abs().max(), 1e-10)
    assert torch.equal(scheduler.timesteps.flip(0), expected[f"timesteps_{steps}"])


def test_ddim_with_eta_equals_the_stock_scheduler_where_steps_divide():
    stock = DDIMScheduler(
        trained_betas=SCHEDULE.betas.tolist(), clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    ours, theirs, other = (
        sample(analytic, NOISE, scheduler=each, steps=25, eta=0.7, generator=torch.Generator().manual_seed(seed))
        for each, seed in ((SCHEDULE.scheduler("ddim"), 4), (stock, 4), (stock, 5))
    )
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)  # the stock one computes betas in float32
    assert (ours - other).abs().max() > 0.01


def test_ddim_timesteps_span_the_schedule_for_every_number_of_steps():
    scheduler = SCHEDULE.scheduler("ddim")
    for steps in range(1, 1001, 3):
        scheduler.set_timesteps(steps)
        assert len(scheduler.timesteps) == steps and (scheduler.timesteps.diff() < 0).all()
        assert scheduler.timesteps[-1] == (1 if steps < 1000 else 0)
        assert 999 - 1000 / steps <= scheduler.timesteps[0] <= 999


def test_forward_process():
    t = torch.tensor([0, 999])
    expected, _ = q_sample(X_START, NOISE, t)
    torch.testing.assert_close(SCHEDULE.add_noise(X_START, NOISE, t), expected)
    torch.testing.assert_close(SCHEDULE.scheduler("ddim").add_noise(X_START, NOISE, t), expected)


@pytest.mark.parametrize(("name", "steps"), cases(1, 20, 61))
def test_perfect_prediction_leads_to_the_start(name, steps):
    """Errors are relative: one step from t = 999 multiplies rounding by a sigma of 84."""
    scheduler = SCHEDULE.scheduler(name)
    result = sample(perfect(X_START), NOISE, scheduler=scheduler, steps=steps)
    expected = X_START
    if name in ENDS_AT_LEAST_NOISE:  # these keep the first predicted noise at the level of t = 0
        first = perfect(X_START)(NOISE, scheduler.timesteps[:1].expand(2))
        expected, _ = q_sample(X_START, first, torch.tensor([0, 0]))
    assert (result - expected).abs().max() < 2e-3 * expected.abs().max()


@pytest.mark.parametrize(("name", "steps"), cases(1, 10))
def test_outside_the_mask_the_network_sees_the_known_latent_at_its_noise_level(name, steps):
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, 4:], mask[1, :, :, :3] = 1, 1
    outside = (mask == 0).expand(SHAPE)
    seen = []

    def predict(z_t, t):
        expected, _ = q_sample(KNOWN, NOISE, t)
        torch.testing.assert_close(z_t[outside], expected[outside], atol=1e-4, rtol=1e-4)
        seen.append(t[0].item())
        return perfect(X_START)(z_t, t)

    result = sample(predict, NOISE, scheduler=SCHEDULE.scheduler(name), steps=steps, known=KNOWN, mask=mask)
    assert len(set(seen)) == steps
    assert torch.equal(result[outside], KNOWN[outside])
    if steps > 1:
        assert (result - X_START)[~outside].abs().max() < 0.3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pndm", {"steps": 7}, "spreads 7 steps over t = 1 to .* divisor of 1000"),
        ("ddim", {"steps": 1001}, "steps is 1001: expected 1 to 1000"),
        ("dimm", {"steps": 3}, r"no scheduler 'dimm': choose ddim, .*dpm\+\+"),
        ("KDPM2DiscreteScheduler", {"steps": 3}, "no scheduler 'KDPM2"),
        ("euler", {"steps": 3, "eta": 1.0}, "EulerDiscreteScheduler has no eta"),
    ],
)
def test_impossible_sampling_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        sample(analytic, NOISE, scheduler=SCHEDULE.scheduler(name), **options)
