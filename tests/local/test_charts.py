"""SVG charts: gaps, ticks, words that fit, and the picture of `opportune backtest`."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from local.charts import COLOURS, Chart, Lanes, Line, Panel, picture, ticks


def test_lines_break_where_nothing_was_measured() -> None:
    svg = Chart(10, 1.0, "u").line(np.arange(5.0), np.array([1, 1, np.nan, 1, np.nan]), "bleu").svg("x")
    assert svg.count("<polyline") == 1 and svg.count("<circle") == 1 and "nan" not in svg


@pytest.mark.parametrize("high", [0.003, 1.0, 7.0, 100.0, 123456.0])
def test_ticks_are_few_round_and_inside(high: float) -> None:
    found = ticks(0, high, 4)
    assert 3 <= len(found) <= 6 and found[0] == 0 and found[-1] <= high * 1.000001


def test_a_pin_without_room_is_shortened_and_keeps_its_words_in_the_tooltip() -> None:
    long = "new: 2022-03 to 2023-03"
    svg = Lanes(100, ["traffic"]).pin(0, 10, "drift", long).pin(0, 40, "drift", "new: b").svg("x")
    assert f"<title>{long}</title>" in svg and f">{long}</text>" not in svg and "…</text>" in svg
    assert ">new: b</text>" in svg


def test_a_picture_is_one_valid_svg_file_with_every_line_name_and_mark() -> None:
    lines = [Line(f"p{n} & <q>", [0.5, math.nan, 0.5 + n / 100], [(0, 0), (2, 1)]) for n in range(len(COLOURS) + 1)]
    drawn = picture([Panel("first", lines), Panel("second", lines[:1], x_per_step=0.5)], "All <of> it")
    root = ElementTree.fromstring(drawn)
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    for said in ("All <of> it", "first", "second", "p0 & <q>", f"p{len(COLOURS)} & <q>", "hours"):
        assert said in words, said
    assert drawn.count('<rect class="c') == len(lines) + 1, "a square for every retrain on Azure"
    assert 'class="dot c0 later"' in drawn, "more lines than colours are told apart"
    assert "nan" not in drawn
