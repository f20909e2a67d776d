"""One of two workers of a MultiWorkerMirroredStrategy, for strategies_test.py.

    TF_CONFIG=... python -m tests.on_two_workers RESULTS.npz

Each worker has half of the data. It writes what it found to its own file.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tf_pseudofeat as tfpf

N = 120
RNG = np.random.default_rng(0)
Y = RNG.permutation(np.repeat([0, 1, 2], [80, 30, 10]))
X = (RNG.normal(size=(N, 4)) + 2 * np.eye(4)[Y]).astype("float32")


def build():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    x = layers.Dense(5, activation="relu", name="features")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name="net")
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def error_of(function, *args, **settings):
    try:
        function(*args, **settings)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


class Reached(keras.callbacks.Callback):
    """Knows whether `fit` came as far as its callbacks."""

    reached = False

    def on_train_begin(self, logs=None):
        self.reached = True


def layers_of_all(strategy, gaussian):
    """The layer of each worker on every worker, from what Keras would save of it."""
    mine = {}
    gaussian.save_own_variables(mine)
    of_all = {
        name: strategy.gather(tf.constant(values[None]), axis=0).numpy()
        for name, values in mine.items()
    }  # [workers, ...]
    for worker in range(strategy.num_replicas_in_sync):
        layer = tfpf.ClassConditionalGaussian.from_config(gaussian.get_config())
        layer.build((None, *gaussian.seen_shape))
        layer.load_own_variables({name: of_all[name][worker] for name in mine})
        yield layer


def main(path):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    rank = strategy.cluster_resolver.task_id
    results = {"workers": strategy.num_replicas_in_sync}
    with strategy.scope():
        model = build()
    mine = slice(rank, None, 2)
    data = tf.data.Dataset.from_tensor_slices((X[mine], Y[mine])).batch(16)

    # What is refused, by one worker alone, too: nobody waits for the other.
    before = model.get_weights()
    if rank == 0:
        callback = tfpf.PseudoFeatureHeadRetrainer("features", data)
        callback.set_model(model)
        trunk, head = tfpf.split_at(model, "features")
        refused = {
            "retrain_head": (tfpf.retrain_head, model, "features", data),
            "tune": (tfpf.tune, model, "features", data, data),
            "callback": (callback.on_train_begin,),
        }
        for name, (function, *args) in refused.items():
            results[f"error/{name}"] = error_of(function, *args)
        results["error/fit_head"] = error_of(tfpf.Task, head, 3, "mse")
        results["unchanged"] = all(map(np.array_equal, before, model.get_weights()))

    # What Keras itself makes of it.
    reached = Reached()
    settings = {"verbose": 0, "callbacks": [reached]}
    results["error/keras"] = error_of(model.fit, data, **settings)
    results["reached"] = reached.reached

    # Statistics: each worker sees its own half, and then all have those of the whole.
    trunk = tfpf.split_at(model, "features").trunk
    features, labels = tfpf.extract_features(trunk, data, verbose=0)
    gaussian = tfpf.ClassConditionalGaussian(3)
    gaussian.update_state(features, labels)
    merged = tfpf.ClassConditionalGaussian(3)
    merged.merge_state(layers_of_all(strategy, gaussian))
    merged.finalize_state()
    results |= {"features": features, "loc": merged.loc.numpy()}
    for field in ("count", "mean", "scatter"):
        results[field] = getattr(merged.moments, field)

    # A head: a copy outside of the strategy is retrained on each, and brought back.
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    report = tfpf.retrain_head(
        copy,
        "features",
        (X, Y),
        loss="sparse_categorical_crossentropy",
        epochs=5,
        verbose=0,
    )
    model.set_weights(copy.get_weights())
    results |= {"kept": report.kept, "outputs": model(X).numpy()}
    results |= {f"weight{i}": w for i, w in enumerate(model.get_weights())}
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])
