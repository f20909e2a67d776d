"""Tests of the experiment: its arms, its files, its program, on small real data."""

import copy
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from examples import arms
from examples.arms import ARMS, run_arm
from examples.compare import Results, picture_of, run_arms
from examples.data import imbalance, load_images, under_sampled
from examples.figures import ARM_LABELS
from examples.results_file import read_results
from examples.trunks import FeatureFile
from tests import programs
from tests.paths import ROOT

_TRUNKS = ROOT.parent / "shared" / "trunks"


@pytest.fixture(scope="module")
def file():
    """Pixels of digits as features, five classes cut; a linear head as trained."""
    x, y = load_digits(return_X_y=True)
    x = np.float32(x[:, 10:30] / 16)
    rank = np.array([np.sum(y[:i] == label) for i, label in enumerate(y)])
    train = (rank < 80) & ((y >= 5) | (rank < 10))
    removed, test = (rank < 80) & ~train, rank >= 80
    head = LogisticRegression(max_iter=500).fit(x[train], y[train])
    noise = np.random.default_rng(0).normal(size=(3, train.sum(), 20))
    return FeatureFile(
        features=x[train],
        labels=y[train],
        test_features=x[test],
        test_labels=y[test],
        minority=np.arange(5),
        kernel=head.coef_.T.astype("f4"),
        bias=head.intercept_.astype("f4"),
        view_features=np.float32(x[train] + 0.05 * noise),
        removed_features=x[removed],
        removed_labels=y[removed],
        used_features=np.float32(x[train] + 0.05 * noise[0]),
        used_labels=y[train],
        scratch_predictions=y[test],
        place={"experiment": "pixels", "num_minority": 5, "episode": 0},
    )


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Heads of few and large steps."""
    fit = arms.tfpf.fit_head

    def fit_shortly(task, material, recipe, **options):
        optimizer = keras.optimizers.Adam(0.05)
        recipe = dataclasses.replace(recipe, epochs=10, optimizer=optimizer)
        return fit(task, material, recipe, **options)

    monkeypatch.setattr(arms.tfpf, "fit_head", fit_shortly)


def test_every_arm_has_a_label_and_every_label_an_arm():
    assert set(ARMS) == set(ARM_LABELS)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_gives_scores_and_spares_the_file(arm, file):
    before = copy.deepcopy(dataclasses.asdict(file))
    scores = run_arm(arm, file, 0)
    assert 0.3 < scores["accuracy"] <= 1
    assert len(scores["recall"]) == 10
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(file, name), array)


@pytest.mark.parametrize(
    "arm, lacking",
    [
        ("default", "used_features"),
        ("oracle", "removed_features"),
        ("scratch", "scratch_predictions"),
    ],
)
def test_an_arm_that_cannot_be_says_so(arm, lacking, file):
    scores = run_arm(arm, dataclasses.replace(file, **{lacking: None}), 0)
    assert scores is None


def test_the_lda_arm_agrees_with_scikit_learn(file):
    head = file.head()
    ARMS["lda"](head, file, 0)
    kernel, bias = head.layers[-1].get_weights()
    peer = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=1e-3, priors=np.full(10, 0.1)
    ).fit(file.features, file.labels)
    mine = (file.test_features @ kernel + bias).argmax(axis=1)
    theirs = peer.predict(file.test_features)
    # scikit-learn weighs the covariances of the classes by the priors, not by counts.
    assert np.mean(mine == theirs) > 0.85
    right = [np.mean(p == file.test_labels) for p in (mine, theirs)]
    assert right[0] > right[1] - 0.02


def test_logit_adjustment_finds_more_of_the_minority(file):
    before = run_arm("baseline", file, 0)
    after = run_arm("logit_adjustment", file, 0)
    assert after["mean_minority_accuracy"] > before["mean_minority_accuracy"]


def test_a_feature_file_comes_back(file, tmp_path):
    file.write(tmp_path / "f.npz")
    again = FeatureFile.read(tmp_path / "f.npz")
    np.testing.assert_array_equal(again.labels, file.labels)
    np.testing.assert_allclose(again.view_features, file.view_features, atol=2e-3)
    assert again.features.dtype == np.float32
    assert again.place == file.place
    with pytest.raises(FileNotFoundError, match="no feature file"):
        FeatureFile.read(tmp_path / "other.npz")
    np.savez(tmp_path / "g.npz", features=file.features)
    with pytest.raises(ValueError, match=r"no arrays \['bias', 'kernel', 'labels'\]"):
        FeatureFile.read(tmp_path / "g.npz")


def test_a_feature_file_of_unknown_origin_is_an_experiment_of_its_own(file, tmp_path):
    dataclasses.replace(file, place=None).write(tmp_path / "theirs.npz")
    assert FeatureFile.read(tmp_path / "theirs.npz").place == {
        "experiment": "theirs",
        "num_minority": 5,
        "episode": 0,
    }


def test_what_is_known_is_not_run_again_and_a_torn_line_is(file, tmp_path):
    path = tmp_path / "r.jsonl"
    run_arms(file, [0, 1], ["baseline", "tau_norm"], Results(path))
    text = path.read_text()
    assert len(text.splitlines()) == 2 * 2 + 1  # and a picture
    run_arms(file, [0, 1], ["baseline", "tau_norm"], Results(path))
    assert path.read_text() == text
    lines = text.splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:30])
    run_arms(file, [0, 1], ["baseline"], Results(path))
    assert json.loads(path.read_text().splitlines()[-1])["kind"] == "picture"
    with pytest.warns(UserWarning):
        results, pictures = read_results(path)
    assert (len(results), len(pictures)) == (4, 1)


def test_the_picture_shows_one_minority_class(file):
    picture = picture_of(file)
    assert picture["class_id"] == 0
    assert np.shape(picture["real"]) == (10, 2)
    assert np.shape(picture["pseudo"]) == (200, 2)


def run(*flags):
    return programs.run("examples.compare", *flags)


_ARMS = ["baseline", "oracle", "default", "scratch"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a run of the program, with a network from scratch, too."""
    folder = tmp_path_factory.mktemp("compared")
    flags = ["--depth=8", "--epochs=1", "--scratch", f"--output_dir={folder}"]
    done = run(*flags, f"--arms={','.join(_ARMS)}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_program_trains_caches_and_goes_on(compared, tmp_path):
    shutil.copytree(compared, tmp_path, dirs_exist_ok=True)  # with the times
    trained = list(tmp_path.glob("trunks/*/trained.keras"))
    assert len(trained) == 2
    when = [path.stat().st_mtime for path in trained]
    flags = ["--depth=8", "--epochs=1", f"--output_dir={tmp_path}"]
    second = run(*flags, "--arms=baseline,tau_norm")
    assert second.returncode == 0, second.stderr
    assert [path.stat().st_mtime for path in trained] == when
    results, pictures = read_results(tmp_path / "results.jsonl")
    assert [r["arm"] for r in results] == [*_ARMS, "tau_norm"]
    assert len(pictures) == 1


@pytest.mark.slow
def test_a_network_from_scratch_is_trained_on_as_many_of_each_class(compared):
    (path,) = compared.glob("trunks/*/features.npz")
    file = FeatureFile.read(path)
    small = path.parent.with_name(f"{path.parent.name}-undersampled") / "trained.keras"
    images = load_images("digits").test_images
    predicted = keras.models.load_model(small).predict(images, verbose=0).argmax(-1)
    np.testing.assert_array_equal(file.scratch_predictions, predicted)
    results, _ = read_results(compared / "results.jsonl")
    (result,) = (result for result in results if result["arm"] == "scratch")
    assert result["accuracy"] == pytest.approx(np.mean(predicted == file.test_labels))


def test_under_sampling_leaves_as_many_of_each_class_as_the_smallest_has():
    images = imbalance(load_images("digits"), "long_tail", 5, 20, 0)
    before = np.bincount(images.train_labels)
    small = under_sampled(images, 3)
    assert (np.bincount(small.train_labels) == before.min()).all()
    known = {image.tobytes() for image in images.train_images}
    assert all(image.tobytes() in known for image in small.train_images)


@pytest.mark.slow
def test_networks_trained_apart_are_compared_under_the_same_name(tmp_path):
    flags = ["--depth=8", "--epochs=1", "--num_minority=3", "--first_episode=4"]
    folder = f"--output_dir={tmp_path}"
    trained = run(*flags, folder, "--arms=", "--mixed_precision")
    assert trained.returncode == 0, trained.stderr
    assert f"Networks and features are in {tmp_path}/trunks." in trained.stdout
    assert not (tmp_path / "results.jsonl").exists()
    (path,) = tmp_path.glob("trunks/*/features.npz")
    file = FeatureFile.read(path)
    assert file.view_features is None
    with np.load(path) as arrays:
        assert arrays["features"].dtype == arrays["removed_features"].dtype == "f2"
    model = keras.models.load_model(path.with_name("trained.keras"))
    assert model.get_layer("stem_conv").compute_dtype == "float16"
    assert model.get_layer("stem_conv").kernel.dtype == "float32"

    apart = run(f"--features={path}", folder, "--arms=baseline,scratch")
    assert apart.returncode == 0, apart.stderr
    assert "scratch: the feature file has not what it needs" in apart.stdout
    (result,), _ = read_results(tmp_path / "results.jsonl")
    assert (result["num_minority"], result["episode"]) == (3, 4)
    assert result["experiment"] == (
        "digits, step ratio 10, ResNet-8, 1 epochs, no augmentation, mixed precision"
    )
    assert result["minority"] == file.minority.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--arms=magic"], "'magic'"),
        (["--features=nowhere.npz"], "nowhere.npz"),
        (["--num_minority=10"], "0 to 9"),
        (["--classes=3,11"], "'11'"),
        (["--classes=3,8", "--num_minority=2"], "0 to 1"),
    ],
)
def test_the_program_says_what_is_wrong(flags, message, tmp_path):
    done = run(*flags, f"--output_dir={tmp_path}")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not _TRUNKS.is_dir(), reason=f"{_TRUNKS} is not there")
def test_features_that_somebody_else_made_can_be_compared():
    file = FeatureFile.read(_TRUNKS / "resnet20_minor5_plain.npz")
    scores = run_arm("baseline", file, 0)
    assert scores["accuracy"] == pytest.approx(0.6275, abs=0.001)
