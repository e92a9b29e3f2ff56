"""Receptive fields are found where they are, by maps that do not depend on how patterns were handed over."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from viv1t.estimators import receptive_field
from viv1t.estimators.receptive_field import WeightedMaps
from viv1t.geometry import ROCHEFORT, SENSORIUM
from viv1t.simulate.animal import Animal, Setting
from viv1t.simulate.population import draw_population

PARITY = Path(__file__).parent / "data" / "parity" / "receptive_field.npz"
H, W, CELL = 36, 64, 4
PATTERNS, SHOWN, BATCH = 2000, 5, 100  # SHOWN: frames after onset


@pytest.fixture(scope="module")
def animal() -> Animal:
    return Animal(draw_population(120, SENSORIUM, 3).assign(drive_mean=0.05), Setting(monitor=SENSORIUM))


@pytest.fixture(scope="module")
def noise() -> tuple[np.ndarray, np.ndarray]:
    """Contrast and masks (n, H, W): cells of 4 px, on with p 0.15, checks of 2 px in them, on a shifted lattice."""
    rng = np.random.default_rng(0)
    contrast, masks = np.zeros((PATTERNS, H, W), np.float32), np.zeros((PATTERNS, H, W), bool)
    for k in range(PATTERNS):
        down, right = rng.integers(CELL, size=2)
        cells = np.kron(rng.random((H // CELL + 1, W // CELL + 1)) < 0.15, np.ones((CELL, CELL), bool))
        checks = np.kron(rng.choice((-1, 1), (H // 2 + 2, W // 2 + 2)), np.ones((2, 2)))
        masks[k] = cells[down : down + H, right : right + W]
        contrast[k] = masks[k] * checks[down : down + H, right : right + W]
    return contrast, masks


@pytest.fixture(scope="module")
def responses(animal, noise) -> np.ndarray:
    """Noiseless responses (n, N), frames 2 to 4 after onset less the grey before."""
    rest = [torch.tensor(x)[None, :, None].expand(BATCH, 2, SHOWN)
            for x in (animal.setting.behavior_mean, animal.setting.pupil_center)]  # fmt: skip
    answers = []
    for start in range(0, PATTERNS, BATCH):
        frames = torch.from_numpy(127 + 127.5 * noise[0][start : start + BATCH, None, None])
        answers.append(animal.respond(frames.expand(-1, -1, SHOWN, -1, -1), *rest).numpy())
    answers = np.concatenate(answers)
    return answers[:, :, 2:5].mean(axis=2) - answers[:, :, 0]


@pytest.fixture(scope="module")
def gathered(responses, noise) -> WeightedMaps:
    return gather(receptive_field.signed_root(responses), noise[1])


@pytest.fixture(scope="module")
def fields(gathered) -> pd.DataFrame:
    return fit(gathered)


def gather(responses, regressors, chunk: int = 100) -> WeightedMaps:
    maps = WeightedMaps(responses.shape[1], *regressors.shape[1:])
    for start in range(0, len(responses), chunk):
        maps.update(responses[start : start + chunk], regressors[start : start + chunk])
    return maps


def fit(maps: WeightedMaps) -> pd.DataFrame:
    blur = receptive_field.lattice_blur(CELL)
    return receptive_field.fit_receptive_fields(maps.value(), maps.halves(), maps.nulls(), blur)


def distance(animal: Animal, fields: pd.DataFrame) -> np.ndarray:
    return np.hypot(fields["x"] - animal.neurons["x_px"], fields["y"] - animal.neurons["y_px"]).to_numpy()


class TestTheAnimal:
    def test_centres_of_all_kinds_of_cells(self, animal, fields):
        kind, simple = animal.neurons["kind"], animal.neurons["simple_weight"]
        error = distance(animal, fields)
        assert np.median(error[kind != "undriven"]) < 0.3
        gabor = kind == "gabor"
        for cells in (
            kind == "luminance",
            gabor & (simple < 0.3),
            gabor & (simple > 0.7),
            gabor & simple.between(0.3, 0.7),
        ):
            assert cells.sum() >= 10
            assert (error[cells] < 1).mean() >= 0.95

    def test_a_quarter_of_the_patterns_still_finds_them(self, animal, responses, noise):
        short = fit(gather(receptive_field.signed_root(responses[:500]), noise[1][:500]))
        assert (distance(animal, short)[animal.neurons["kind"] != "undriven"] < 2).mean() >= 0.9

    def test_driven_neurons_are_good_and_noise_is_not(self, animal, fields, responses, noise):
        driven = animal.neurons["kind"] != "undriven"
        assert fields["bad_fit"][driven].mean() <= 0.02
        assert fields["bad_fit"][~driven].all() and fields.loc[~driven, ["x", "snr", "r2"]].isna().all(axis=None)
        rng = np.random.default_rng(1)
        deaf = fit(gather(rng.standard_gamma(0.3, (PATTERNS, 100)), noise[1]))
        assert deaf["bad_fit"].mean() >= 0.95

    def test_size_without_the_cells_of_the_noise(self, animal, fields):
        """The root of the response to contrast energy is as wide as the envelope, whose sd in pixels is known."""
        gabor = animal.neurons["kind"] == "gabor"
        envelope = animal.neurons["sigma_deg"] * np.sqrt(animal.neurons["aspect"]) / SENSORIUM.degrees_per_pixel
        ratio = (np.sqrt(fields["sigma_major"] * fields["sigma_minor"]) / envelope)[gabor]
        assert (abs(ratio - 1) < 0.25).mean() >= 0.9
        width = receptive_field.fwhm_deg(fields, SENSORIUM)[gabor]
        assert np.median(width) == pytest.approx(2.355 * animal.neurons["sigma_deg"][gabor].median(), rel=0.25)

    def test_halves_agree_about_as_well_as_the_whole_does_with_truth(self, animal, fields):
        driven = animal.neurons["kind"] != "undriven"
        error = np.median(distance(animal, fields)[driven])
        assert error < fields["half_distance"][driven].median() < 4 * error

    def test_a_shuffled_population_has_other_fields(self, animal, fields):
        order = np.random.default_rng(2).permutation(len(fields))
        assert np.nanmedian(distance(animal, fields.iloc[order].reset_index(drop=True))) > 2


class TestMaps:
    def test_map_is_the_slope_of_a_regression(self):
        rng = np.random.default_rng(4)
        x, y = rng.random((300, 3, 5)), rng.random((300, 4))
        maps = gather(y, x, chunk=7)
        expected = [[np.polyfit(x[:, i, j], y[:, 2], 1)[0] for j in range(5)] for i in range(3)]
        assert maps.value()[2] == pytest.approx(np.array(expected), abs=1e-5)

    @pytest.mark.parametrize("chunk", (1, 13, 2000))
    def test_chunks_do_not_matter(self, chunk, responses, noise):
        few, masks = responses[:200, :5], noise[1][:200]
        one, other = gather(few, masks), gather(few, masks, chunk)
        for name in ("value", "halves", "nulls"):
            a, b = getattr(one, name)(), getattr(other, name)()
            assert np.allclose(a, b, atol=1e-4 * np.nanmax(abs(a)), equal_nan=True)

    def test_units_and_offsets_pass_through(self, gathered, responses, noise):
        shifted = gather(100 + 5 * receptive_field.signed_root(responses), noise[1])
        assert np.allclose(shifted.value(), 5 * gathered.value(), atol=2e-3 * np.nanmax(abs(gathered.value())))

    def test_nulls_are_the_noise_of_the_map(self):
        """Without any relation the spread of the map equals that of its null maps."""
        rng = np.random.default_rng(5)
        maps = gather(rng.standard_gamma(0.5, (1500, 30)), rng.random((1500, 12, 20)))
        assert maps.value().std() == pytest.approx(maps.nulls().std(), rel=0.05)

    def test_a_regressor_that_never_changes_has_no_slope(self):
        x = np.random.default_rng(6).random((50, 2, 2))
        x[:, 0, 0] = 1
        value = gather(x.sum(axis=2), x).value()
        assert np.isnan(value[:, 0, 0]).all() and np.isfinite(value[:, 1]).all()


class TestWhiteNoise:
    def test_first_order_sees_simple_cells_only_and_second_order_complex_cells_too(self):
        rng = np.random.default_rng(7)
        y, x = np.mgrid[0:20, 0:24]
        centre = rng.uniform([7, 6], [17, 14], (16, 2))
        filters = []
        for cx, cy in centre:
            envelope = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 1.8**2))
            filters.append([envelope * np.cos(2 * np.pi * (x - cx) / 7), envelope * np.sin(2 * np.pi * (x - cx) / 7)])
        filters = np.reshape(filters, (16, 2, -1))
        orders = [WeightedMaps(16, 20, 24) for _ in range(2)]
        for _ in range(120):
            half = rng.uniform(-1, 1, (60, 20, 24))
            z = np.stack([half, -half], axis=1).reshape(120, 20, 24)  # antithetic pairs
            even, odd = (z.reshape(120, -1) @ filters[:, k].T for k in range(2))
            r = np.where(np.arange(16) < 8, np.maximum(even, 0) ** 2, even**2 + odd**2)
            orders[0].update(r, z)
            orders[1].update(r, z**2)
        error = {}
        maps = {"first": [getattr(orders[0], name)() for name in ("value", "halves", "nulls")]}
        maps["first"] = [abs(receptive_field.smoothed(m)) for m in maps["first"]]
        maps["both"] = receptive_field.combined_orders(*orders)
        for name, parts in maps.items():
            found = receptive_field.fit_receptive_fields(*parts, blur=receptive_field.SMOOTH)
            error[name] = np.hypot(*(found[["x", "y"]].to_numpy() - centre).T)
        assert np.median(error["first"][:8]) < 1 and np.median(error["first"][8:]) > 2
        assert (error["both"] < 1).mean() >= 0.9


class TestGaussians:
    def test_known_gaussians_are_recovered_with_their_blur_taken_out(self):
        rng = np.random.default_rng(8)
        truth = pd.DataFrame(
            {
                "x": rng.uniform(8, 55, 80),
                "y": rng.uniform(6, 29, 80),
                "sigma_major": rng.uniform(3, 5, 80),
                "sigma_minor": rng.uniform(1.2, 2.5, 80),
                "theta_deg": rng.uniform(0, 180, 80),
                "amplitude": rng.uniform(1, 50, 80),
                "offset": rng.normal(0, 3, 80),
            }
        )
        blur = 1.6
        wide = truth.assign(**{n: np.hypot(truth[n], blur) for n in ("sigma_major", "sigma_minor")})
        maps = draw(wide)
        found = receptive_field.fit_gaussians(maps, blur=blur)
        turn = (found["theta_deg"] - truth["theta_deg"] + 90) % 180 - 90
        assert abs(turn).max() < 0.5
        for name, tolerance in {"x": 0.02, "y": 0.02, "sigma_major": 0.02, "sigma_minor": 0.02}.items():
            assert abs(found[name] - truth[name]).max() < tolerance, name
        assert found["amplitude"].to_numpy() == pytest.approx(truth["amplitude"], rel=0.03)
        assert found["r2"].min() > 0.999

    def test_holes_are_fields_that_suppress(self):
        truth = pd.DataFrame([{"x": 20.3, "y": 15.2, "sigma_major": 3.0, "sigma_minor": 2.0, "theta_deg": 30.0,
                               "amplitude": 2.0, "offset": 1.0}])  # fmt: skip
        both = np.concatenate([draw(truth), -draw(truth)])
        nulls = np.random.default_rng(0).normal(0, 0.05, (4, *both.shape))
        found = receptive_field.fit_receptive_fields(both, np.stack([both, both]), nulls)
        assert found["sign"].tolist() == [1, -1] and not found["bad_fit"].any()
        assert found["x"].to_numpy() == pytest.approx(20.3, abs=0.01)
        assert found["snr"][0] == pytest.approx(found["snr"][1], rel=0.1)

    def test_coarse_maps_are_fitted_in_pixels(self):
        truth = pd.DataFrame([{"x": 20.3, "y": 15.2, "sigma_major": 3.0, "sigma_minor": 2.0, "theta_deg": 30.0,
                               "amplitude": 2.0, "offset": 1.0}])  # fmt: skip
        cells = draw(truth).reshape(1, 9, 4, 16, 4).mean(axis=(2, 4))
        found = receptive_field.fit_gaussians(
            cells, np.arange(16) * 4 + 1.5, np.arange(9) * 4 + 1.5, receptive_field.lattice_blur(4, shifted=False)
        )
        for name in ("x", "y", "sigma_major", "sigma_minor"):
            assert found[name][0] == pytest.approx(truth[name][0], abs=0.1)

    def test_order_of_neurons_and_neighbours_do_not_matter(self, gathered):
        maps = gathered.value()
        alone = receptive_field.fit_gaussians(maps[5:6])
        together = receptive_field.fit_gaussians(maps[::-1])
        assert together.iloc[len(maps) - 6].to_numpy() == pytest.approx(
            alone.iloc[0].to_numpy(), rel=1e-4, nan_ok=True
        )

    def test_constant_and_missing_maps_have_no_field(self):
        maps = np.ones((2, H, W))
        maps[1, 4, 4] = np.nan
        assert receptive_field.fit_gaussians(maps).isna().all(axis=None)

    def test_formula_as_published(self):
        parity = np.load(PARITY)
        y, x = np.mgrid[0:H, 0:W]
        ours = receptive_field.gaussian2d(x, y, parity["gaussian_params"])
        assert ours == pytest.approx(parity["gaussians"], abs=1e-12)

    @pytest.mark.parametrize("monitor", (SENSORIUM, ROCHEFORT))
    def test_width_in_degrees_shrinks_towards_the_edge(self, monitor):
        x, y = monitor.centre
        fields = pd.DataFrame({"x": [x, 62.0], "y": [y, y], "sigma_major": 1.0, "sigma_minor": 1.0, "theta_deg": 0.0})
        middle, edge = receptive_field.fwhm_deg(fields, monitor)
        assert middle == pytest.approx(2.355 * monitor.degrees_per_pixel, rel=0.02)
        assert edge[0] < edge[1] < middle[1]


def draw(fields: pd.DataFrame) -> np.ndarray:
    names = ["amplitude", "x", "y", "sigma_major", "sigma_minor", "theta_deg", "offset"]
    y, x = np.mgrid[0:H, 0:W]
    return receptive_field.gaussian2d(x, y, fields.assign(theta_deg=np.radians(fields["theta_deg"]))[names].to_numpy())
