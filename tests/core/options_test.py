"""Tests for options.py: keywords that override the fields of a frozen dataclass."""

import dataclasses

import pytest

from tf_pseudofeat.core.options import check_known, field_names, with_fields


@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: int = 3
    rate: float = 0.1


def test_fields_are_overridden_and_the_given_object_stays_as_it_is():
    given = Settings(epochs=5)
    assert with_fields(Settings, "settings", given, {"rate": 1.0}) == Settings(5, 1.0)
    assert with_fields(Settings, "settings", None, {"rate": 1.0}) == Settings(3, 1.0)
    assert given == Settings(epochs=5)


def test_another_type_is_named_with_what_the_argument_may_be():
    message = "`settings` must be of type Settings, or 'auto'; received 'automatic'"
    with pytest.raises(TypeError, match=message):
        with_fields(Settings, "settings", "automatic", {}, also=", or 'auto'")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epoch", "is not an option. Did you mean 'epochs'[?] The options are epochs"),
        ("zzz", "'zzz' is not an option. The options are epochs, rate."),
        ("lr", "is not an option. Pass rate=0.1. The options"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_what_to_pass(name, hint):
    with pytest.raises(TypeError, match=hint):
        check_known({name: 1}, field_names(Settings), {"lr": "rate=0.1"})
    check_known({"rate": 1}, field_names(Settings))
