"""Figures come in two formats with the numbers drawn, their fonts agree, and reports can embed them."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from viv1t.errors import UserError
from viv1t.plotting import page, panels, style


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
