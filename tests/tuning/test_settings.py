import pytest

from keras_practice.tuning import Settings


@pytest.mark.parametrize("field", ["trials", "epochs", "batch_size"])
def test_settings_refuse_what_is_not_a_count(field):
    for wrong in (0, -1, 1.5, True, "3"):
        with pytest.raises(ValueError, match=f"{field} must be a positive integer"):
            Settings(**{field: wrong})
