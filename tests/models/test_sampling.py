import pytest
import torch
from diffusers import DDIMScheduler

from difftalk_pl.errors import UserError
from difftalk_pl.models.sampling import SCHEDULERS, NoiseSchedule, sample

SCHEDULE = NoiseSchedule()
ALPHA = SCHEDULE.alphas_cumprod
ENDS_AT_LEAST_NOISE = {"ddim", "pndm", "deis"}  # the others end at no noise at all
SHAPE = (2, 3, 8, 8)


def cases(*numbers):
    """Every scheduler with every number of steps, but for those that pndm refuses."""
    return [(name, n) for name in ("ddim", *SCHEDULERS) for n in numbers if name != "pndm" or 1000 % n == 0]


def tensor(seed, dtype=torch.float64):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


X_START, NOISE, KNOWN = tensor(0), tensor(1), tensor(2)


def q_sample(x_start, noise, t):
    """The forward process at whole and, between them, at the timesteps of Euler's linspace (sigma is interpolated)."""
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
def test_the_released_schedule(golden, record_difference):
    expected = golden("ddim_eta0")
    assert SCHEDULE.betas.shape == ALPHA.shape == expected["betas"].shape
    record_difference("noise schedule: betas", (SCHEDULE.betas - expected["betas"]).abs().max(), 1e-10)
    record_difference("noise schedule: alphas_cumprod", (ALPHA - expected["alphas_cumprod"]).abs().max(), 1e-10)


@pytest.mark.oracle
@pytest.mark.parametrize("steps", [10, 50, 200])
def test_ddim_equals_the_published_sampler(golden, record_difference, steps):
    expected = golden("ddim_eta0")
    scheduler = SCHEDULE.scheduler("ddim")
    result = sample(analytic, expected["x_T"].double(), scheduler=scheduler, steps=steps)
    assert result.shape == expected[f"x0_{steps}"].shape
    record_difference(f"DDIM, {steps} steps", (result - expected[f"x0_{steps}"]).abs().max(), 1e-10)
    assert torch.equal(scheduler.timesteps.flip(0), expected[f"timesteps_{steps}"])


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_equals_the_stock_scheduler_where_steps_divide(eta):
    stock = DDIMScheduler(
        trained_betas=SCHEDULE.betas.tolist(), clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    ours, theirs = (
        sample(analytic, NOISE, scheduler=each, steps=25, eta=eta, generator=torch.Generator().manual_seed(4))
        for each in (SCHEDULE.scheduler("ddim"), stock)
    )
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)  # the stock one computes betas in float32


def test_ddim_timesteps_span_the_schedule_for_every_number_of_steps():
    scheduler = SCHEDULE.scheduler("ddim")
    for steps in range(1, 1001):
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps
        assert len(timesteps) == steps
        assert (timesteps.diff() < 0).all()
        assert timesteps[-1] == (1 if steps < 1000 else 0)
        assert 999 - 1000 / steps <= timesteps[0] <= 999


def test_forward_process():
    t = torch.tensor([0, 999])
    expected, _ = q_sample(X_START, NOISE, t)
    torch.testing.assert_close(SCHEDULE.add_noise(X_START, NOISE, t), expected)
    torch.testing.assert_close(SCHEDULE.scheduler("ddim").add_noise(X_START, NOISE, t), expected)
    assert SCHEDULE.add_noise(X_START.float(), NOISE.float(), t).dtype == torch.float32


def test_linear_schedule():
    schedule = NoiseSchedule(steps=200, start=1e-3, end=2e-2, kind="linear")
    assert schedule.betas[[0, -1]].tolist() == [1e-3, 2e-2]
    torch.testing.assert_close(schedule.betas.diff(), torch.full((199,), 1.9e-2 / 199, dtype=torch.float64))
    with pytest.raises(ValueError, match="'cosine'"):
        _ = NoiseSchedule(kind="cosine").betas


@pytest.mark.parametrize(("name", "steps"), cases(1, 2, 7, 20, 61, 300))
def test_a_perfect_prediction_leads_to_the_start(name, steps):
    scheduler = SCHEDULE.scheduler(name)
    result = sample(perfect(X_START), NOISE, scheduler=scheduler, steps=steps)
    expected = X_START
    if name in ENDS_AT_LEAST_NOISE:  # these keep the first predicted noise, and leave of it what t = 0 has
        first = perfect(X_START)(NOISE, scheduler.timesteps[:1].expand(2))
        expected, _ = q_sample(X_START, first, torch.tensor([0, 0]))
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)
    assert result.dtype == torch.float64


@pytest.mark.parametrize("name", ["ddim", *SCHEDULERS])
def test_the_network_starts_from_the_noise_at_unit_scale(name):
    seen = []

    def predict(z_t, t):
        seen.append(z_t)
        return analytic(z_t, t)

    sample(predict, NOISE, scheduler=SCHEDULE.scheduler(name), steps=10)
    torch.testing.assert_close(seen[0], NOISE, atol=0, rtol=0.01)


@pytest.mark.parametrize(("name", "steps"), cases(1, 10, 61))
def test_outside_the_mask_the_network_sees_the_known_latent_at_its_noise(name, steps):
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, 4:], mask[1, :, :, :3] = 1, 1
    outside = (mask == 0).expand(SHAPE)
    seen = []

    def predict(z_t, t):
        assert t.shape == (2,)
        expected, _ = q_sample(KNOWN, NOISE, t)
        torch.testing.assert_close(z_t[outside], expected[outside], atol=1e-5, rtol=0)
        seen.append(t[0].item())
        return perfect(X_START)(z_t, t)

    result = sample(predict, NOISE, scheduler=SCHEDULE.scheduler(name), steps=steps, known=KNOWN, mask=mask)
    assert len(set(seen)) == steps
    assert torch.equal(result[outside], KNOWN[outside])
    if steps > 1:
        assert (result - X_START)[~outside].abs().max() < 0.3
        assert not torch.isclose(result, KNOWN)[~outside].all()


@pytest.mark.parametrize("name", ["ddim", "dpm++", "euler"])
def test_all_known_or_all_generated(name):
    everything, nothing = torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    options = {"scheduler": SCHEDULE.scheduler(name), "steps": 10}
    free = sample(analytic, NOISE, **options)
    assert torch.equal(sample(analytic, NOISE, known=KNOWN, mask=everything, **options), free)
    assert torch.equal(sample(analytic, NOISE, known=KNOWN, mask=nothing, **options), KNOWN)


def test_a_scheduler_can_be_used_again():
    for name in ("ddim", *SCHEDULERS):
        scheduler = SCHEDULE.scheduler(name)
        first, _, again = (
            sample(analytic, NOISE, scheduler=scheduler, steps=steps, generator=torch.Generator().manual_seed(3))
            for steps in (10, 20, 10)
        )
        assert torch.equal(first, again), name


def test_eta_draws_from_the_generator():
    scheduler = SCHEDULE.scheduler("ddim")

    def run(eta, seed):
        generator = torch.Generator().manual_seed(seed)
        return sample(analytic, NOISE, scheduler=scheduler, steps=10, eta=eta, generator=generator)

    assert torch.equal(run(1.0, 5), run(1.0, 5))
    assert not torch.allclose(run(1.0, 5), run(1.0, 6))
    assert torch.equal(run(0.0, 5), run(0.0, 6))


def test_ddim_can_end_without_noise():
    scheduler = SCHEDULE.scheduler("ddim", set_alpha_to_one=True)
    result = sample(perfect(X_START), NOISE, scheduler=scheduler, steps=13)
    torch.testing.assert_close(result, X_START, atol=1e-10, rtol=0)


@pytest.mark.parametrize("steps", [7, 600, 1000])
def test_pndm_refuses_steps_that_leave_the_schedule(steps):
    with pytest.raises(UserError, match=f"spreads {steps} steps over t = 1 to .* divisor of 1000"):
        sample(analytic, NOISE, scheduler=SCHEDULE.scheduler("pndm"), steps=steps)


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_outside_the_schedule(steps):
    with pytest.raises(UserError, match=f"steps is {steps}: expected 1 to 1000"):
        sample(analytic, NOISE, scheduler=SCHEDULE.scheduler("ddim"), steps=steps)


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"no scheduler 'dimm': choose one of ddim, .*dpm\+\+"):
        SCHEDULE.scheduler("dimm")
    with pytest.raises(UserError, match="'FlowMatchEulerDiscreteScheduler' cannot use this noise schedule"):
        SCHEDULE.scheduler("FlowMatchEulerDiscreteScheduler")
    with pytest.raises(UserError, match=r"no option 'solver_ordre': .*solver_order"):
        SCHEDULE.scheduler("dpm++", solver_ordre=3)
    with pytest.raises(UserError, match="EulerDiscreteScheduler has no eta"):
        sample(analytic, NOISE, scheduler=SCHEDULE.scheduler("euler"), steps=3, eta=1.0)
    with pytest.raises(ValueError, match="known and mask belong together"):
        sample(analytic, NOISE, scheduler=SCHEDULE.scheduler("ddim"), steps=3, known=KNOWN)
    with pytest.raises(UserError, match="KDPM2DiscreteScheduler cannot hold a known latent"):
        scheduler = SCHEDULE.scheduler("KDPM2DiscreteScheduler")
        sample(analytic, NOISE, scheduler=scheduler, steps=3, known=KNOWN, mask=torch.ones(2, 1, 8, 8))


def test_classes_of_diffusers_by_name():
    scheduler = SCHEDULE.scheduler("DPMSolverSinglestepScheduler", solver_order=2)
    assert type(scheduler).__name__ == "DPMSolverSinglestepScheduler"
    result = sample(perfect(X_START), NOISE, scheduler=scheduler, steps=10)
    torch.testing.assert_close(result, X_START, atol=2e-5, rtol=0)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"start": 0.0}, {"start": 0.1, "end": 0.01}, {"end": 1.0}])
def test_a_schedule_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UserError, match=r"schedule\.steps .* expected 1 step or more"):
        NoiseSchedule(**wrong)
