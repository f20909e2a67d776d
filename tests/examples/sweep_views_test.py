"""The sweep over views, on a network that is trained for an epoch."""

import json

import pytest

from examples import sweep_random_layers
from examples.compare import Results
from examples.data import load_images
from examples.sweep_views import recipe_of, sweep_views, views_table
from examples.trunks import Recipe, network_features
from tests.few_steps import heads_train_briefly  # noqa: F401

pytestmark = pytest.mark.usefixtures("heads_train_briefly")


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("cifar10", num_minority=9, seed=3),
        Recipe("cifar10", profile="long_tail", ratio=100, augment="flip_and_shift"),
        Recipe("digits", depth=56, epochs=100, batch_size=128, mixed_precision=True),
    ],
    ids=str,
)
def test_a_network_is_known_by_the_name_of_its_folder(recipe):
    assert str(recipe_of(str(recipe))) == str(recipe)
    with pytest.raises(ValueError, match="is not named as"):
        recipe_of("my-network")


@pytest.mark.slow
def test_each_view_of_a_network_is_a_line_and_a_row(tmp_path):
    images, recipe = load_images("digits"), Recipe("digits", depth=8, epochs=1)
    network_features(recipe, images, tmp_path)
    results = Results(tmp_path / "views.jsonl")
    names = ["plain", "shifts of 1/8, reflected", "noise of 0.1"]
    for _ in range(2):  # the second finds all there
        sweep_views(tmp_path / str(recipe), images, results, views=names)
    lines = [json.loads(line) for line in results.path.read_text().splitlines()]
    arms = [f"500 a class, {name}, Gaussians" for name in names]
    assert [line["arm"] for line in lines] == ["as trained", *arms]
    rows = views_table(results.path, blend=0.5, tau=1.0).splitlines()
    line = lines[2]
    accuracy = line["accuracy"][line["blends"].index(0.5)][line["taus"].index(1.0)]
    assert rows[-2].startswith(f"| {arms[1]} | {accuracy / 100:.1f} |")


@pytest.mark.slow
def test_random_layers_of_a_network_are_one_of_its_views(tmp_path):
    results = Results(tmp_path / "layers.jsonl")
    sweep_random_layers.run(load_images("digits"), "step", 1, 0, results)
    text = views_table(results.path)
    for head in ("as trained", "its own random layers", "small shifts", "oracle"):
        assert head in text
