"""SavedModels in service: the versions of a folder, found, loaded and called.

Knows a model by its signatures alone: neither Keras nor tf_pseudofeat is imported.
"""

import pathlib
import re

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from .image_size import count_pixels

__all__ = ["Servable", "ServedModel", "code_and_reason", "find_model"]

_CLASS_NAMES = pathlib.Path("assets", "class_names.txt")


class Servable:
    """One loaded version of a model.

    Args:
        folder: of a SavedModel, called by the number of its version.
        max_pixels: of all images in a request.
    """

    def __init__(self, folder, max_pixels):
        self._max_pixels = max_pixels
        folder = pathlib.Path(folder)
        saved_model = saved_model_pb2.SavedModel.FromString(
            (folder / "saved_model.pb").read_bytes()
        )
        self.version = int(folder.name)
        self.signatures = saved_model.meta_graphs[0].signature_def
        self.class_names = None
        if (folder / _CLASS_NAMES).is_file():
            self.class_names = (folder / _CLASS_NAMES).read_text("utf-8").splitlines()
        self._loaded = tf.saved_model.load(str(folder))

    def signature(self, name=""):
        """The `SignatureDef` of that name; by default of "serving_default"."""
        name = name or "serving_default"
        if name not in self._loaded.signatures:
            raise _invalid(
                f"No signature {name!r} in version {self.version}; "
                f"there are: {', '.join(sorted(self._loaded.signatures))}."
            )
        return self.signatures[name]

    def predict(self, inputs, signature_name=""):
        """The outputs of a signature.

        Args:
            inputs: {name: array}, all that the signature takes.
            signature_name: by default "serving_default".

        Returns:
            outputs: {name: array}.

        Raises:
            tf.errors.OpError: Of the code that a client is to get.
        """
        infos = self.signature(signature_name).inputs
        if set(inputs) != set(infos):
            raise _invalid(
                f"Received the inputs {sorted(inputs)}; expected {sorted(infos)}."
            )
        for name, value in inputs.items():
            _check_tensor(name, value, infos[name])
        self._check_images(inputs)
        call = self._loaded.signatures[signature_name or "serving_default"]
        tensors = {
            name: tf.constant(value, tf.as_dtype(infos[name].dtype))
            for name, value in inputs.items()
        }
        try:
            outputs = call(**tensors)
        except tf.errors.InvalidArgumentError:
            raise  # of what came in: not an image, say
        except tf.errors.OpError as error:  # its NOT_FOUND is not the client's
            raise tf.errors.InternalError(
                None, None, f"Version {self.version} failed: {error.message}"
            ) from error
        return {name: value.numpy() for name, value in outputs.items()}

    def _check_images(self, inputs):
        """Refuses images that take too much memory, before they are decoded."""
        strings = [value.ravel() for value in inputs.values() if value.dtype == object]
        pixels = sum(count_pixels(file) for files in strings for file in files)
        if pixels > self._max_pixels:
            raise _invalid(
                f"Received images of {pixels:,} pixels; the most in one request is "
                f"{self._max_pixels:,}. Send smaller images, or fewer at a time."
            )


class ServedModel:
    """A model as clients know it: a name, and the versions that are in its folder.

    `poll` brings them up to date. It may run in one thread while others `find` and
    predict: a version that was removed lives until its last request is done.

    Args:
        name: in the path of a request.
        folder: of `<version number>/saved_model.pb`.
        max_pixels: of all images in a request.
    """

    def __init__(self, name, folder, max_pixels):
        self._max_pixels = max_pixels
        self.name, self.folder = name, pathlib.Path(folder)
        self.versions = {}  # {version: Servable}, never changed, only replaced
        self._failures = {}  # {version: (files that were there, reason)}

    def poll(self):
        """Loads versions that have come, and lets go of those that went."""
        try:
            folders = {
                int(path.name): path
                for path in self.folder.iterdir()
                if re.fullmatch("[0-9]{1,18}", path.name)
                and (path / "saved_model.pb").is_file()
            }
        except OSError as error:
            logging.error("%s: %s; what is loaded stays.", self.name, error)
            return
        for version in sorted(self.versions.keys() - folders.keys()):
            logging.info("%s: version %d is out of service.", self.name, version)
        self.versions = {v: s for v, s in self.versions.items() if v in folders}
        self._failures = {v: f for v, f in self._failures.items() if v in folders}
        for version in sorted(folders.keys() - self.versions.keys()):
            self._load(version, folders[version])

    def _load(self, version, folder):
        """Loads a version; one that failed only if its files have changed since."""
        files = _files_of(folder)
        if version in self._failures and self._failures[version][0] == files:
            return
        try:
            servable = Servable(folder, self._max_pixels)
        except Exception as error:  # whatever is in the folder, the server goes on
            reason = f"Version {version} of {self.name!r} does not load: {error}"
            logging.error("%s", reason)
            self._failures = self._failures | {version: (files, reason)}
            return
        self.versions = self.versions | {version: servable}
        self._failures = {v: f for v, f in self._failures.items() if v != version}
        logging.info("%s: version %d is in service.", self.name, version)

    def find(self, version=None):
        """The `Servable` of a version; by default of the latest."""
        failures, versions = self._failures, self.versions  # a load goes that way
        if version is None and versions:
            return versions[max(versions)]
        if version in versions:
            return versions[version]
        if version in failures or (version is None and failures):
            _, reason = failures[max(failures) if version is None else version]
            raise tf.errors.UnavailableError(None, None, reason)
        wanted = "" if version is None else f" {version}"
        raise tf.errors.NotFoundError(
            None,
            None,
            f"No version{wanted} of {self.name!r} is in service; "
            f"there are: {sorted(versions) or 'none'}.",
        )

    def status(self, version=None):
        """TensorFlow Serving's `GetModelStatusResponse`, of one version or of all."""
        failures, versions = self._failures, self.versions
        states = get_model_status_pb2.ModelVersionStatus
        response = get_model_status_pb2.GetModelStatusResponse()
        for number in sorted(versions.keys() | failures, reverse=True):
            if version in (None, number):
                one = response.model_version_status.add(version=number)
                one.state = states.AVAILABLE if number in versions else states.END
                if number not in versions:
                    one.status.error_code = tf.errors.UNAVAILABLE
                    one.status.error_message = failures[number][1]
                one.status.SetInParent()
        if version is not None and not response.model_version_status:
            self.find(version)  # raises, with the reason
        return response

    def metadata(self, version=None):
        """`GetModelMetadataResponse`: the signatures of a version."""
        servable = self.find(version)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap(
            signature_def=servable.signatures
        )
        response.metadata["signature_def"].Pack(signatures)
        return response


def find_model(models, name):
    """The `ServedModel` of a name."""
    if name not in models:
        raise tf.errors.NotFoundError(
            None, None, f"No model {name!r} here; there are: {', '.join(models)}."
        )
    return models[name]


def code_and_reason(error):
    """(gRPC's code, reason) of whatever a request ended in."""
    if isinstance(error, tf.errors.OpError):
        return error.error_code, error.message[:2000]  # more is not a gRPC status
    logging.error("A request failed", exc_info=error)
    return tf.errors.INTERNAL, f"{type(error).__name__}: {error}"[:2000]


def _files_of(folder):
    """What tells one state of a folder from the next."""
    files = (path for path in folder.rglob("*") if path.is_file())
    stats = ((str(path), path.stat()) for path in files)
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats}


def _check_tensor(name, value, info):
    """Refuses an array of another type or shape than the signature's."""
    dtype, shape = tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
    received = "string" if value.dtype == object else np.dtype(value.dtype).name
    if received != dtype.name or not shape.is_compatible_with(value.shape):
        sizes = None if shape.rank is None else shape.as_list()
        expected = "any shape" if sizes is None else f"shape {sizes}"
        raise _invalid(
            f"Input {name!r}: received {received} of shape {list(value.shape)}; "
            f"expected {dtype.name} of {expected.replace('None', 'any')}."
        )


def _invalid(message):
    return tf.errors.InvalidArgumentError(None, None, message)
