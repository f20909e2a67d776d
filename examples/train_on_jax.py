"""Step 1 of the experiment on one GPU: Keras on jax, and no TensorFlow.

    python -m examples.compare --dataset=cifar10 --data_dir=DIR --depth=56 \\
        --num_minority=1,5,9 --pack=outputs/packed
    KERAS_BACKEND=jax python -m examples.train_on_jax --packed=outputs/packed
    python -m examples.compare --dataset=cifar10 --data_dir=DIR --depth=56 \\
        --num_minority=1,5,9

The second command needs the two folders `examples` and --packed, and of packages
jax, keras and absl-py. Each network becomes OUTPUT_DIR/trunks/NAME/trained.keras, where
the third command finds it, and a line of OUTPUT_DIR/pace.jsonl. Networks that are
there are not trained again.

Images stay on the device, and many steps are one compiled loop, which trains all
networks of a depth. A recipe of mixed precision computes in bfloat16: its range is that
of float32, so the loss needs no scaling. What is saved computes in float32.
"""

import functools
import json
import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import keras
import numpy as np
from absl import app, flags

from .pace import matmul_rate, training_flops
from .resnet import resnet

__all__ = ["Trainer", "evaluate", "random_views", "save", "train"]

FLAGS = flags.FLAGS

_BLOCK = 2000  # images of a forward pass


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("packed", None, "Folder of `examples.compare --pack`.")
    flags.DEFINE_string("output_dir", "outputs/compare", "For networks and their pace.")
    flags.DEFINE_integer("steps", 25, "In one compiled loop.", lower_bound=1)
    flags.mark_flag_as_required("packed")


def random_views(images, key, flip):
    """A batch as `examples.data.random_views` augments it, from jax's own draws.

    Args:
        images: `[B, height, width, channels]`.
        key: of jax.
        flip: also from left to right, one image in two.

    Returns:
        views: like `images`.
    """
    count, height, width, channels = images.shape
    border = max(1, height // 8)
    flip_key, shift_key = jax.random.split(key)
    padded = jnp.pad(images, [(0, 0), (border, border), (border, border), (0, 0)])
    corners = jax.random.randint(shift_key, (count, 2), 0, 2 * border + 1)
    views = jax.vmap(
        lambda image, corner: jax.lax.dynamic_slice(
            image, (*corner, 0), (height, width, channels)
        )
    )(padded, corners)
    if flip:
        flipped = jax.random.bernoulli(flip_key, 0.5, (count, 1, 1, 1))
        views = jnp.where(flipped, views[:, :, ::-1], views)
    return views


_VIEWS = {
    None: lambda images, key: images,
    "shift": functools.partial(random_views, flip=False),
    "flip_and_shift": functools.partial(random_views, flip=True),
}


class Trainer:
    """A residual network as functions of its state, compiled once.

    Args:
        depth: layers, 6n + 2.
        image_shape: `(height, width, channels)`.
        num_classes: C.
        policy: Keras dtype policy to compute in.

    Attributes:
        model: Keras model, for its layers; its own weights are not used.
        run_steps: `(state, images, labels, rows [steps, B], rates [steps], view, key)
            -> (state, losses [steps])`, with `view` a place in `_VIEWS`.
        features: `(trainable, rest, images, rows [B]) -> [B, D]`, in inference.
    """

    def __init__(self, depth, image_shape, num_classes, policy="float32"):
        self._arguments = depth, image_shape, num_classes
        self._policy = policy
        self.model = self._resnet(policy)
        self._optimizer = keras.optimizers.Adam()
        self._optimizer.build(self.model.trainable_variables)
        # Where the learning rate is among them; each step brings its own.
        self._rate = [
            variable is self._optimizer.learning_rate
            for variable in self._optimizer.variables
        ].index(True)
        self._trunk = keras.Model(
            self.model.input, self.model.get_layer("features").output
        )
        self.run_steps = jax.jit(self._run_steps, donate_argnums=0)
        self.features = jax.jit(self._features)

    def _resnet(self, policy):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return resnet(*self._arguments)
        finally:
            keras.config.set_dtype_policy(before)

    def start(self, seed):
        """The state of a network with fresh weights."""
        keras.utils.set_random_seed(seed)
        model = self._resnet(self._policy)
        return tuple(
            [jnp.array(variable.value) for variable in variables]
            for variables in (
                model.trainable_variables,
                model.non_trainable_variables,
                self._optimizer.variables,
            )
        )

    def trained_model(self, state):
        """A Keras model of a state, which computes in float32."""
        model = self._resnet("float32")
        for variables, values in zip(
            (model.trainable_variables, model.non_trainable_variables),
            state,
            strict=False,
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return model

    def _loss(self, trainable, rest, x, y):
        probabilities, rest = self.model.stateless_call(
            trainable, rest, x, training=True
        )
        losses = keras.losses.sparse_categorical_crossentropy(y, probabilities)
        return jnp.mean(losses), rest

    def _run_steps(self, state, images, labels, rows, rates, view, key):
        def step(state, now):
            trainable, rest, moments = state
            rows, rate, key = now
            x = jax.lax.switch(view, list(_VIEWS.values()), images[rows], key)
            (loss, rest), gradient = jax.value_and_grad(self._loss, has_aux=True)(
                trainable, rest, x, labels[rows]
            )
            moments = [*moments[: self._rate], rate, *moments[self._rate + 1 :]]
            trainable, moments = self._optimizer.stateless_apply(
                moments, gradient, trainable
            )
            return (trainable, rest, moments), loss

        keys = jax.random.split(key, len(rates))
        # XLA's convolutions inside a loop are slow on a CPU.
        unroll = len(rates) if jax.default_backend() == "cpu" else 1
        return jax.lax.scan(step, state, (rows, rates, keys), unroll=unroll)

    def _features(self, trainable, rest, images, rows):
        # The trunk has all weights but the classifier's two, which come last.
        kept = trainable[: len(self._trunk.trainable_variables)]
        return self._trunk.stateless_call(kept, rest, images[rows], training=False)[0]


def train(network, trainer, images, labels, steps=25):
    """Trains one network.

    Args:
        network: dict, a line of `networks.jsonl`.
        trainer: `Trainer` of its shape.
        images: all training images, on the device.
        labels: int32, on the device.
        steps: in one compiled loop; the training is rounded up to whole loops.

    Returns:
        state: trained, see `Trainer`.
        pace: dict of seconds. The first loop compiles; where there is another, a step
            is timed without it.
    """
    rows, batch = np.array(network["rows"]), network["batch_size"]
    epoch = -(-len(rows) // batch)
    loops = -(-network["epochs"] * epoch // steps)
    total = loops * steps
    rng = np.random.default_rng([network["seed"], 7])
    epochs = -(-total * batch // len(rows))
    order = np.concatenate([rng.permutation(rows) for _ in range(epochs)])
    order = order[: total * batch].reshape(loops, steps, batch)
    decay = 0.5 * (1 + np.cos(np.pi * np.arange(total) / total))
    rates = np.float32(network["learning_rate"] * decay).reshape(loops, steps)
    view = list(_VIEWS).index(network["augment"])
    keys = jax.random.split(jax.random.key(network["seed"]), loops)
    state = trainer.start(network["seed"])
    began = time.perf_counter()
    for loop in range(loops):
        state, losses = trainer.run_steps(
            state, images, labels, order[loop], rates[loop], view, keys[loop]
        )
        if loop == 0:
            losses.block_until_ready()
            second = time.perf_counter()
        if loop % max(1, loops // 8) == 0:
            print(f"  step {loop * steps} of {total}: loss {losses.mean():.4f}")
    losses.block_until_ready()
    ended = time.perf_counter()
    step_seconds = (ended - second) / (total - steps) if loops > 1 else ended - began
    return state, {
        "images": len(rows),
        "epochs": network["epochs"],
        "steps": total,
        "seconds_a_step": step_seconds,
        "images_a_second": batch / step_seconds,
        "seconds_an_epoch": epoch * step_seconds,
        "seconds_of_first_call": second - began,
        "seconds_in_all": ended - began,
    }


def extract(trainer, state, images, rows):
    """Features of some images `[N, D]`, float32, block by block."""
    blocks = -(-len(rows) // _BLOCK)
    padded = np.resize(rows, (blocks, _BLOCK))
    features = [trainer.features(*state[:2], images, block) for block in padded]
    return np.float32(jnp.concatenate(features))[: len(rows)]


def evaluate(network, trainer, state, arrays):
    """What a trained network predicts, and how long its features take.

    Args:
        network: dict, a line of `networks.jsonl`.
        trainer: `Trainer`.
        state: trained.
        arrays: dict of the image set, on the device.

    Returns:
        scores: dict: accuracies, recalls of the classes, seconds of an extraction.
    """
    rows, kernel, bias = np.array(network["rows"]), *map(np.array, state[0][-2:])
    test_rows = np.arange(len(arrays["test_labels"]))

    def right(kind, rows):
        features = extract(trainer, state, arrays[f"{kind}_images"], rows)
        predicted = np.argmax(features @ kernel + bias, axis=1)
        return predicted == np.array(arrays[f"{kind}_labels"])[rows]

    trained, tested = right("train", rows), right("test", test_rows)
    began = time.perf_counter()  # the extraction is compiled by now
    extract(trainer, state, arrays["train_images"], rows)
    seconds = time.perf_counter() - began
    labels = np.array(arrays["test_labels"])
    classes = range(network["num_classes"])
    return {
        "extraction_seconds": seconds,
        "training_accuracy": float(trained.mean()),
        "test_accuracy": float(tested.mean()),
        "recalls": [float(tested[labels == class_id].mean()) for class_id in classes],
    }


def save(model, path):
    """Writes a model to a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".unfinished-{path.name}")
    model.save(aside)
    os.replace(aside, path)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    if keras.backend.backend() != "jax":
        sys.exit("train_on_jax: start it with KERAS_BACKEND=jax.")
    packed, output_dir = map(pathlib.Path, (FLAGS.packed, FLAGS.output_dir))

    @functools.cache
    def arrays_of(name):
        with np.load(packed / f"{name}.npz") as arrays:
            return {key: jnp.asarray(arrays[key]) for key in arrays.files}

    trainer_of, product_rate = functools.cache(Trainer), functools.cache(matmul_rate)
    for text in (packed / "networks.jsonl").read_text().splitlines():
        network = json.loads(text)
        path = output_dir / "trunks" / network["name"] / "trained.keras"
        if path.exists():
            continue
        print(f"Training {network['name']}", flush=True)
        arrays = arrays_of(network["images"])
        dtype = "bfloat16" if network["mixed_precision"] else "float32"
        policy = "mixed_bfloat16" if network["mixed_precision"] else "float32"
        shape = arrays["train_images"].shape[1:]
        trainer = trainer_of(network["depth"], shape, network["num_classes"], policy)
        product = product_rate(dtype, in_a_row=10)
        state, pace = train(
            network,
            trainer,
            arrays["train_images"],
            arrays["train_labels"],
            FLAGS.steps,
        )
        flops = pace["images_a_second"] * training_flops(trainer.model)
        line = {
            "name": network["name"],
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "keras": keras.__version__,
            "dtype": policy,
            "matmul_flops": product,
            **pace,
            "share_of_matmul": flops / product,
            **evaluate(network, trainer, state, arrays),
        }
        save(trainer.trained_model(state), path)
        with (output_dir / "pace.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    print(
        f"Networks are in {output_dir}/trunks, their pace in {output_dir}/pace.jsonl."
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
