"""A KServe server of one export: `python kserve_process.py NAME FOLDER PORT`.

A program by itself, for an interpreter that has kserve and TensorFlow; it does without
Keras and this package. `FOLDER` is one version, such as `served/1`. The V1
protocol of KServe is TensorFlow Serving's, and leaves to the model what a row is.
"""

import base64
import json
import sys

import kserve
import tensorflow as tf


class SavedModel(kserve.Model):
    """Answers {"instances": rows} by a signature of a SavedModel."""

    def __init__(self, name, folder):
        super().__init__(name)
        self.folder = folder

    def load(self):
        self.loaded = tf.saved_model.load(self.folder)
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None, response_headers=None):
        call = self.loaded.signatures[payload.get("signature_name", "serving_default")]
        (_, specs), rows = call.structured_input_signature, payload["instances"]
        if not isinstance(rows[0], dict) or "b64" in rows[0]:  # a single input, unnamed
            (only,) = specs
            rows = [{only: row} for row in rows]
        outputs = call(
            **{
                name: tf.constant([plain(row[name]) for row in rows], spec.dtype)
                for name, spec in specs.items()
            }
        )
        columns = {key: value.numpy().tolist() for key, value in outputs.items()}
        answers = [
            dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]
        # The names of classes are bytes, which JSON does not have.
        return json.loads(json.dumps({"predictions": answers}, default=bytes.decode))


def plain(value):
    """A value of JSON, in which bytes are {"b64": text}."""
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


if __name__ == "__main__":
    name, folder, port = sys.argv[1:]
    model = SavedModel(name, folder)
    model.load()
    kserve.ModelServer(http_port=int(port), enable_grpc=False).start([model])
