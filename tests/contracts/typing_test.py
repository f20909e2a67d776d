"""The type hints of what a user calls: all there, and mypy finds a wrong argument."""

import inspect
import re

import pytest

import tf_pseudofeat as tfpf
from tests.paths import ROOT

RIGHT = """
import keras
import numpy as np
import tf_pseudofeat as tfpf

model = keras.Sequential()
x, y = np.zeros((4, 3)), np.array([0, 0, 0, 1])
retrainer = tfpf.PseudoFeatureHeadRetrainer("features", (x, y), every=2, tau=1.0)
report = tfpf.retrain_head(
    model, "features", (x, y), recipe="auto", monitor="f1", class_names=["a", "b"]
)
path: str = tfpf.export_classifier(model, "served", class_names={0: "a", 1: "b"})
print(report.metrics()["after_f1"] + 1.0, report.recipe.tau, report.to_dict())
trunk, head = tfpf.split_at(model, "features")
features, labels = tfpf.extract_features(trunk, (x, y), views=2, seed=[1, 2])
gaussian = tfpf.ClassConditionalGaussian(2, covariance_type="tied", shrinkage=0.5)
gaussian.adapt(features, labels)
gaussian.sample([0, 1], seed=(1, 2))
counts = tfpf.pseudo_counts(y, tfpf.multiply_minority(20))
tfpf.interleave(x, y, gaussian, counts, batch_size=2)
tfpf.fit_head(
    tfpf.Task(head, 2, "crossentropy"),
    tfpf.prepare_material(tfpf.LabeledFeatures(x, y), tfpf.HeadRecipe(epochs=3), 2),
)
paper = tfpf.HeadRecipe.paper()
tfpf.retrain_head(model, tfpf.Split(trunk, head), (x, y), recipe=paper)
tfpf.adjust_logits(model, [3, 1], target_prior="uniform")
tfpf.adjust_logits(model, report)
thresholds = tfpf.choose_thresholds(model, (x, y), "macro_f1", temperature=True)
thresholds.decide(np.full((3, 2), 0.5)).argmax()
print(tfpf.diagnose(model, "features", (x, y), (x, y)).recommended.score + 1)
print(tfpf.tune(model, "features", (x, y), (x, y)).recipe.epochs)
usual = tfpf.separating_layers(model).usual
if usual is not None:
    usual.layer_name.upper()
tfpf.save_moments(tfpf.moments_of(x, y, 2), "moments.npz")
with tfpf.ShardWriter("shards", rows_per_shard=10) as writer:
    writer.add(x, y)
tfpf.write_index("shards")
print(len(tfpf.load_features("shards", verify=False)))
tfpf.min_class_accuracy([0, 1], [0, 1]) < 0.5
tfpf.GaussianOverSampler(sampling_strategy={1: 10}, random_state=0)
tfpf.GeometricMean(10, threshold=0.0)
"""

# Each line, and what mypy has to say of it.
WRONG = {
    "tfpf.retrain_head(None, 3, None)": '"int"; expected "str | Split | None"',
    'tfpf.retrain_head(None, "a", None, seed=1)': 'expected "Sequence[int]"',
    'tfpf.retrain_head(None, "a", None, recipe=5)': 'expected "HeadRecipe | str',
    'tfpf.retrain_head(None, "a", None).reprot': 'has no attribute "reprot"',
    'tfpf.ClassConditionalGaussian("10")': 'expected "int"',
    "tfpf.HeadRecipe(epoch=3)": 'Unexpected keyword argument "epoch"',
    'tfpf.HeadRecipe(epochs="3")': 'expected "int | None"',
    'tfpf.Extraction(views="two")': 'expected "int | None"',
    "tfpf.pseudo_counts([0, 1], [5, 5])": 'expected "str | float',
    'tfpf.split_at(None, ["features"])': 'expected "str | None"',
    "tfpf.export_classifier(None, 3)": 'expected "str | PathLike[Any]"',
    'tfpf.export_classifier(None, "a", class_names=3)': "expected",
    'tfpf.adjust_logits(None, [1, 2], tau="1")': 'expected "float"',
    'tfpf.multiply_minority("20")': 'expected "float"',
    "tfpf.accuracy([0], [0]).mean()": '"float" has no attribute "mean"',
    'tfpf.PseudoFeatureHeadRetrainer("a", None, every="2")': 'expected "int | None"',
    'tfpf.load_features("a", verify="no")': 'expected "bool"',
    "tfpf.save_moments(3.0)": 'Missing positional argument "file"',
    "tfpf.next_version(7)": 'expected "str | PathLike[Any]"',
}


@pytest.mark.slow
def test_mypy_takes_right_calls_and_finds_the_wrong_ones(tmp_path):
    api = pytest.importorskip("mypy.api")
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(RIGHT)
    wrong.write_text("\n".join(["import tf_pseudofeat as tfpf", *WRONG]))
    options = [
        f"--config-file={ROOT / 'pyproject.toml'}",
        f"--cache-dir={tmp_path / 'cache'}",
        "--disallow-untyped-calls",
        "--no-error-summary",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", str(ROOT))
        said = api.run([*options, str(right), str(wrong)])[0]
    assert not [line for line in said.splitlines() if "right.py" in line]
    for number, (code, expected) in enumerate(WRONG.items(), start=2):
        found = re.findall(rf"wrong\.py:{number}: error: (.*)", said)
        assert any(expected in error for error in found), f"{code}: {found}"


def signatures():
    """{name: function} of the functions and methods that this package offers."""
    found = {}
    for name in tfpf.__all__:
        thing = getattr(tfpf, name)
        if inspect.isfunction(thing):
            found[name] = thing
        for own, member in vars(thing).items() if inspect.isclass(thing) else ():
            for wrapper in ("__func__", "fget", "func"):
                member = getattr(member, wrapper, member)
            if inspect.isfunction(member) and (own[0] != "_" or own == "__init__"):
                found[f"{name}.{own}"] = member
    return found


# What Keras calls, and no user.
HOOKS = {"build", "call", "compute_output_shape"}
HOOKS |= {"load_own_variables", "save_own_variables"}
SIGNATURES = {
    name: function
    for name, function in signatures().items()
    if name.rpartition(".")[2] not in HOOKS
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_public_signature_has_its_types(name):
    signature = inspect.signature(SIGNATURES[name])
    bare = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty
        and parameter.name not in ("self", "cls")
    ]
    assert not bare, f"{name} lacks types of {bare}"
    assert signature.return_annotation is not signature.empty, f"{name} returns what?"
