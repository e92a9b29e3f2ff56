"""Figures come in two formats with the numbers drawn, panels show what they are given, reports can embed them."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from viv1t.errors import UserError
from viv1t.plotting import maps, page, panels, space, style, tuning


@pytest.fixture
def drawn():
    fig, axes = style.figure(1, 3)
    rng = np.random.default_rng(0)
    panels.traces(axes[0, 0], np.arange(30) / 30, rng.random((4, 30)), {"twin": rng.random(30)})
    panels.histogram(axes[0, 1], {"twin": np.append(rng.random(50), np.nan)}, np.linspace(0, 1, 11))
    panels.intervals(axes[0, 2], {"live_main": {"twin": (0.3, 0.2, 0.4)}, "validation": {"oracle": (0.5, 0.4, 0.6)}})
    return fig


def test_a_saved_figure_has_two_formats_its_numbers_and_its_caption(drawn, tmp_path):
    numbers = pd.DataFrame({"neuron": [1, 2], "correlation": [0.25, 0.5]})
    paths = style.save(drawn, tmp_path / "figures" / "performance.v1", numbers, "Correlation <of> neurons.")
    assert [path.suffix for path in paths] == [".pdf", ".png", ".csv"] and all(path.stat().st_size for path in paths)
    pd.testing.assert_frame_equal(pd.read_csv(paths[2]), numbers)
    with Image.open(paths[1]) as image:
        assert image.info["Description"] == "Correlation <of> neurons."
    html = page.figure(paths[1], tmp_path)
    assert "data:image/png;base64," in html and "Correlation &lt;of&gt; neurons." in html
    assert 'href="figures/performance.v1.csv"' in html


def test_the_same_figure_gives_the_same_bytes(drawn, tmp_path):
    first, second = (style.save(drawn, tmp_path / name, pd.DataFrame({"x": [1]})) for name in "ab")
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_one_font_size(drawn):
    texts = [text for ax in drawn.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels())]
    assert {text.get_fontsize() for text in texts} == {style.FONT}


def test_a_damaged_figure_is_told(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match="not a readable PNG"):
        page.figure(tmp_path / "broken.png", tmp_path)


def axis(**kwargs):
    return style.figure(**kwargs)[1][0, 0]


def test_correlation_of_angles_sees_no_zero():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 360, (2, 500))
    assert tuning.circular_correlation(a, (a + 90) % 360) == pytest.approx(1)
    assert tuning.circular_correlation(a, -a) == pytest.approx(-1)
    assert tuning.circular_correlation(a / 2, a / 2 + 170, period=180) == pytest.approx(1)
    assert abs(tuning.circular_correlation(a, b)) < 0.1
    assert np.isnan(tuning.circular_correlation(np.zeros(5), a[:5]))


def test_an_estimate_beside_the_truth_tells_its_error():
    ax, truth = axis(), np.array([350.0, 355, 2, 10, 100, np.nan])
    tuning.against_truth(ax, truth, truth + 8, "direction (deg)", period=360)
    assert "bias +8\nn = 5" in ax.get_title(loc="left") and "circular r = 1.00" in ax.get_title(loc="left")
    assert ax.get_xlabel() == "true direction (deg)" and ax.get_xlim() == ax.get_ylim() == (0, 360)
    ax = axis()
    tuning.paired_scatter(ax, np.arange(4.0), np.array([1.0, 3, 5, 7]), "OSI")
    assert ax.get_title(loc="left") == "r = 1.00, bias +2.5\nn = 4" and ax.get_ylabel() == "OSI, twin"
    tuning.against_truth(axis(), np.full(3, np.nan), np.ones(3), "OSI")  # nothing to draw is no error


def test_polar_axes_point_where_the_pattern_moves():
    ax = axis(subplot_kw={"projection": "polar"})
    tuning.polar_tuning(ax, np.arange(0, 360, 45), {"twin": np.ones(8)})
    centre = ax.transData.transform((0, 0))
    towards = {angle: ax.transData.transform((np.radians(angle), 1)) - centre for angle in (0, 90, 180, 270)}
    assert towards[0][0] < 0 and towards[180][0] > 0  # left, right
    assert towards[90][1] < 0 and towards[270][1] > 0  # down, up


def test_curves_close_the_circle():
    ax, angles = axis(), np.arange(0, 360, 30)
    curve = np.exp(np.cos(np.radians(angles)))
    tuning.tuning_curve(ax, angles, {"recorded": (curve, curve - 0.1, curve + 0.1), "twin": (curve, curve, curve)})
    x, y = ax.lines[0].get_data()
    assert x[-1] == 360 and y[-1] == y[0] and len(x) == 13


def test_a_fitted_field_lies_where_its_map_is():
    ax = axis()
    maps.field_map(ax, np.ones((36, 64)), maps.pixels(36, 64), (40, 10, 6, 3, 30))
    (ellipse,) = ax.patches
    assert ellipse.center == (40, 10) and (ellipse.width, ellipse.height, ellipse.angle) == (12, 6, 30)
    assert ax.get_ylim() == (35.5, -0.5)  # rows count downward
    ax = axis()
    maps.field_map(ax, np.full((4, 4), np.nan), maps.pixels(4, 4), (np.nan,) * 5)  # a neuron without field
    assert not ax.patches


def test_centres_outside_the_monitor_are_counted():
    ax = axis()
    centres = np.array([[10.0, 10], [30, 20], [-9, 5], [np.nan, np.nan]])
    maps.field_density(ax, centres, maps.pixels(36, 64))
    assert ax.get_title(loc="left") == "n = 3, outside 1"


def test_cyclic_values_meet_and_missing_ones_are_grey():
    ax, xy = axis(), np.random.default_rng(0).random((4, 2))
    maps.cortex_map(ax, xy, np.array([0.0, 180, 90, np.nan]), "axis (deg)", period=180)
    unknown, points = ax.collections
    points.update_scalarmappable()
    colors = points.get_facecolors()
    np.testing.assert_allclose(colors[0], colors[1])
    assert abs(colors[0] - colors[2]).max() > 0.3 and len(unknown.get_offsets()) == 1


def test_deeper_is_lower():
    ax, depth = axis(), np.repeat([200.0, 225], 10)
    maps.strip_by_depth(ax, depth, np.ones(20), {200.0: (1, 0.9, 1.1), 225.0: (1, 0.8, 1.2)}, "correlation")
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_weights_cover_a_frame_from_their_lower_limit_on():
    frame = np.full((4, 6), 100.0)
    weights = np.linspace(0, 2, 24).reshape(4, 6)
    colors = maps.blended(frame, weights, (1.0, 2.0))
    assert colors.shape == (4, 6, 3) and colors.dtype == np.uint8
    assert (colors[weights <= 1] == 100).all() and (colors[weights > 1.2] != 100).any(axis=-1).all()


def test_the_other_panels(tmp_path):
    fig, axes = style.figure(2, 2)
    rng = np.random.default_rng(0)
    tuning.index_histogram(axes[0, 0], {"recorded": rng.random(50), "twin": rng.random(50)}, "global OSI")
    distance, mean = np.arange(10, 60, 10.0), np.linspace(0.3, 0.1, 5)
    tuning.similarity_vs_distance(axes[0, 1], distance, mean, mean - 0.02, mean + 0.02, 0.05)
    tuning.similarity_vs_distance(axes[1, 0], distance, mean, mean, mean, (mean - 0.3, mean - 0.2), label="recorded")
    panels.stacked_traces(
        axes[1, 1], np.arange(9) / 30, {"recorded": rng.random((3, 9)), "twin": np.zeros((3, 9))}, "abc"
    )
    for ax in axes.flat[:3]:
        ax.legend()
    style.save(fig, tmp_path / "panels", pd.DataFrame({"x": [1]}))
    texts = [t for ax in axes.flat for t in (ax.xaxis.label, ax.yaxis.label, ax.title, *ax.get_yticklabels())]
    assert {text.get_fontsize() for text in texts} == {style.FONT}
    assert "median" in axes[0, 0].get_legend().get_texts()[0].get_text()
    assert [label.get_text() for label in axes[1, 1].get_yticklabels()] == list("abc")


def test_a_volume_to_turn_needs_no_other_file():
    xyz = np.random.default_rng(0).uniform(-300, 300, (20, 3))
    values = {"r </script>": np.r_[np.nan, np.linspace(0.123456, 1, 19)], "axis": np.linspace(0, 360, 20)}
    html = space.cortex_scatter3d("Mouse <A>", xyz, values, {"axis": 180})
    assert not re.search(r"https?://|src=|href=|import |fetch|@import", html) and html.count("</script>") == 1
    assert "Mouse &lt;A&gt;" in html and "20 neurons" in html
    data = json.loads(re.search(r"const data = (.*);\n", html)[1])
    np.testing.assert_allclose(np.transpose(data["xyz"]), xyz, rtol=1e-3)
    r, axis_of_motion = data["values"]["r </script>"], data["values"]["axis"]
    assert r[0] is None and r[1] == 0.1235 and max(axis_of_motion) < 180 and len(axis_of_motion) == 20
