import math

import numpy as np
import pytest

from shared.quality import quality


def test_half_bleu_and_half_exact_match_of_numbers_and_arrays() -> None:
    assert quality(0.8, 0.4) == pytest.approx(0.6)
    np.testing.assert_allclose(quality(np.array([1.0, 0.5]), np.array([0.0, 0.5])), [0.5, 0.5])


def test_what_is_missing_stays_missing() -> None:
    assert math.isnan(quality(0.8, math.nan))
