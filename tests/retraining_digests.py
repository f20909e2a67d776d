"""What one seed gives, to the bit: a digest of every stage and of every option.

    python -m tests.retraining_digests                # a line of JSON
    python -m tests.retraining_digests --compare      # under other threads and flags

`reproducible_test.py` holds those of two processes against each other. `--compare`
prints which settings of a machine change which of them.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from imblearn.over_sampling import SMOTE
from sklearn.datasets import load_digits

from tests.noise import noisy
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.sampling.interleave import interleave
from tf_pseudofeat.sampling.oversamplers import (
    GaussianOverSampler,
    PerturbedOverSampler,
)
from tf_pseudofeat.splitting.split_at import split_at

__all__ = [
    "OPTIONS",
    "digest",
    "imbalanced_digits",
    "of_process",
    "retrained",
    "small_model",
    "stages",
]

SEED = (1, 2)
COUNTS = {1: 40, 3: 100, 7: 100}

ENVIRONMENTS = {
    "the same again": {},
    "another PYTHONHASHSEED": {"PYTHONHASHSEED": "12345"},
    "1 thread within TensorFlow's operations": {"TF_NUM_INTRAOP_THREADS": "1"},
    "8 threads within TensorFlow's operations": {"TF_NUM_INTRAOP_THREADS": "8"},
    "1 thread between TensorFlow's operations": {"TF_NUM_INTEROP_THREADS": "1"},
    "1 thread of BLAS": {"OPENBLAS_NUM_THREADS": "1"},
    "8 threads of BLAS": {"OPENBLAS_NUM_THREADS": "8"},
    "1 thread of OpenMP": {"OMP_NUM_THREADS": "1"},
    "no oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "oneDNN without AVX-512": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "OpenBLAS for an older processor": {"OPENBLAS_CORETYPE": "Haswell"},
}


def option(**settings):
    """Arguments of `retrain_head`, made anew for each use: layers have a state."""
    return lambda: {name: make() for name, make in settings.items()}


OPTIONS = {
    "defaults": option(),
    "fresh_head": option(fresh_head=lambda: True),
    "fixed set": option(fresh_each_epoch=lambda: False),
    "diag": option(gaussian=lambda: ClassConditionalGaussian(10, "diag")),
    "tied": option(gaussian=lambda: ClassConditionalGaussian(10, "tied")),
    "spherical": option(gaussian=lambda: ClassConditionalGaussian(10, "spherical")),
    "SMOTE": option(sampler=lambda: SMOTE(k_neighbors=3, random_state=4)),
    "GaussianOverSampler": option(sampler=lambda: GaussianOverSampler(random_state=4)),
    "PerturbedOverSampler": option(
        sampler=lambda: PerturbedOverSampler(random_state=4)
    ),
    "function of a seed": option(augment=lambda: noisy, views=lambda: 2),
    "augmenting layer": option(
        augment=lambda: keras.layers.RandomTranslation(0.1, 0.1), views=lambda: 2
    ),
    "auto": option(augment=lambda: noisy, views=lambda: 2, recipe=lambda: "auto"),
    "all that draws": option(
        augment=lambda: keras.layers.RandomTranslation(0.1, 0.1),
        views=lambda: 2,
        fresh_head=lambda: True,
    ),
    "blend and tau": option(blend=lambda: 0.5, tau=lambda: 0.8),
}


def digest(*arrays):
    """The same for the same bits, shapes and types, and for nothing else."""
    total = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        total.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return total.hexdigest()[:16]


def values_of(variables):
    """Copies, as NumPy arrays."""
    return [np.copy(keras.ops.convert_to_numpy(variable)) for variable in variables]


def imbalanced_digits():
    """`(images [N, 8, 8, 1], labels [N])`: classes 1, 3 and 7 are rare."""
    images, labels = load_digits(return_X_y=True)
    rank = np.array([np.sum(labels[:i] == c) for i, c in enumerate(labels)])
    keep = rank < np.where(np.isin(labels, list(COUNTS)), 12, 60)
    return images[keep].reshape(-1, 8, 8, 1).astype("float32"), labels[keep]


def small_model():
    """A convolution, features of 16 numbers, and a head with two kinds of noise."""
    layers, initial = keras.layers, keras.initializers.GlorotUniform
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 16),
            layers.Conv2D(8, 3, activation="relu", kernel_initializer=initial(1)),
            layers.Flatten(),
            layers.Dense(16, "relu", kernel_initializer=initial(2), name="features"),
            layers.Dropout(0.2),
            layers.Dense(16, "relu", kernel_initializer="he_normal"),
            layers.GaussianNoise(0.1),
            layers.Dense(10, "softmax", kernel_initializer=initial(3)),
        ]
    )
    model.layers[-3].kernel.assign(np.eye(16, dtype="float32"))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def retrained(model, data, options, seed=SEED, epochs=4):
    """Digest of all weights after `retrain_head`; the model is as it was again."""
    before = values_of(model.variables)
    report = retrain_head(
        model,
        "features",
        data,
        validation_data=data,
        monitor=None,
        epochs=epochs,
        batch_size=64,
        seed=seed,
        verbose=0,
        **options(),
    )
    after = values_of(model.weights)
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return digest(*after, report.loss, report.after["recall"])


def stages(names=tuple(OPTIONS), epochs=4):
    """{stage or option: digest}.

    Args:
        names: the options of `retrain_head` to go through.
        epochs: of each retraining.
    """
    keras.utils.set_random_seed(0)
    images, labels = data = imbalanced_digits()
    model = small_model()
    model.fit(images, labels, epochs=2, shuffle=False, verbose=0)
    found = {"training": digest(*values_of(model.weights))}
    model = small_model()  # what follows does not hang on that training
    trunk, _ = split_at(model, "features")
    features, _ = extract_features(trunk, data, verbose=0)
    found["features"] = digest(features)
    batches = tf.data.Dataset.from_tensor_slices(data).batch(32)
    found["features, batches of 32"] = digest(
        extract_features(trunk, batches, verbose=0).features
    )
    rng = np.random.default_rng(0)
    known = rng.normal(size=(4000, 96)) @ rng.normal(size=(96, 96))
    known, known_labels = known.astype("float32"), np.arange(4000) % 10
    for covariance_type in COVARIANCE_TYPES:
        gaussian = ClassConditionalGaussian(10, covariance_type)
        gaussian.adapt(known, known_labels)
        found[f"fit, {covariance_type}"] = digest(
            gaussian.moments.scatter, *keras.tree.flatten(gaussian.parameters())
        )
        rows = gaussian.sample(known_labels, SEED)
        found[f"samples, {covariance_type}"] = digest(rows)
        found[f"densities, {covariance_type}"] = digest(gaussian(known))
    broad = rng.normal(size=(4000, 512)) @ rng.normal(size=(512, 512))
    gaussian = ClassConditionalGaussian(2)
    gaussian.adapt(broad.astype("float32"), np.arange(4000) % 2)
    found["fit, full, 512 features"] = digest(*gaussian.parameters())
    # Of parameters that no fit has rounded: the streams themselves.
    unit = ClassConditionalGaussian(10)
    unit.build((None, 96))
    found["standard normals"] = digest(unit.sample(known_labels, SEED))
    for fresh in (True, False):
        stream = interleave(
            known, known_labels, unit, COUNTS, 43, SEED, fresh_each_epoch=fresh
        )
        rows = [batch.numpy() for batch, _ in stream.repeat(2)]
        found[f"stream, {'fresh' if fresh else 'fixed'}"] = digest(*rows)
    for name in names:
        found[f"retrain_head, {name}"] = retrained(
            model, data, OPTIONS[name], epochs=epochs
        )
    return found


def of_process(environment, names=tuple(OPTIONS), epochs=4):
    """`stages` of a new process with other environment variables."""
    settings = ["--epochs", str(epochs), "--options", *names]
    done = subprocess.run(
        [sys.executable, "-m", "tests.retraining_digests", *settings],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(names, epochs):
    """Prints what of a machine's settings changes which digests."""
    plain = of_process({}, names, epochs)
    for name, environment in ENVIRONMENTS.items():
        other = of_process(environment, names, epochs)
        changed = [stage for stage in plain if other[stage] != plain[stage]]
        print(f"{name}: {len(plain) - len(changed)} of {len(plain)} the same")
        for stage in changed:
            print(f"    {stage}")
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--options", nargs="*", choices=OPTIONS, default=OPTIONS)
    arguments = parser.parse_args()
    if arguments.compare:
        compare(arguments.options, arguments.epochs)
    else:
        print(json.dumps(stages(arguments.options, arguments.epochs)))
