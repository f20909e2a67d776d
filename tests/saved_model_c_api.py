"""Asks a SavedModel through TensorFlow's C API; the tensorflow package is not imported.

    python tests/saved_model_c_api.py JOB.json FEEDS.npz ANSWERS.npz

The job has the paths of the libraries and of the SavedModel, and for each endpoint the
tensor to feed and those to fetch. Each is asked twice: for one row, and for all.
"""

import ctypes
import json
import pathlib
import sys

import numpy as np

STRING, STRING_BYTES = 7, 24  # TF_STRING, sizeof(TF_TString)
NUMBERS = {1: np.float32, 4: np.uint8}  # TF_FLOAT, TF_UINT8


class Pointer(ctypes.c_void_p):
    """A plain `c_void_p` comes back as an int, and goes in as half of one."""


class Output(ctypes.Structure):
    """TF_Output."""

    _fields_ = (("operation", Pointer), ("index", ctypes.c_int))


RESULTS = {
    "GraphOperationByName AllocateTensor TensorData StringGetDataPointer": Pointer,
    "LoadSessionFromSavedModel NewStatus NewGraph NewSessionOptions": Pointer,
    "Version Message": ctypes.c_char_p,
    "TensorByteSize StringGetSize": ctypes.c_size_t,
    "Dim": ctypes.c_int64,
}


class Session:
    """A SavedModel, loaded by the loader of TensorFlow Serving."""

    def __init__(self, libraries, path):
        self.tf = [ctypes.CDLL(file, ctypes.RTLD_GLOBAL) for file in libraries][-1]
        for names, kind in RESULTS.items():
            for name in names.split():
                getattr(self.tf, f"TF_{name}").restype = kind
        self.status, self.graph = self.tf.TF_NewStatus(), self.tf.TF_NewGraph()
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = self.tf.TF_NewSessionOptions(), None
        where = path.encode(), tags, 1, self.graph, None, self.status
        self.session = self.tf.TF_LoadSessionFromSavedModel(*options, *where)
        self.check()

    def check(self):
        """Raises what went wrong in the last call."""
        if self.tf.TF_GetCode(self.status):
            raise RuntimeError(self.tf.TF_Message(self.status).decode())

    def ask(self, feed, array, fetches):
        """Arrays of the tensors `fetches`."""
        outputs = (Output * len(fetches))(*map(self.output, fetches))
        results = (Pointer * len(fetches))()
        given = (Output * 1)(self.output(feed)), (Pointer * 1)(self.tensor_of(array)), 1
        asked = outputs, results, len(fetches)
        rest = None, 0, None, self.status
        self.tf.TF_SessionRun(self.session, None, *given, *asked, *rest)
        self.check()
        return list(map(self.array_of, results))

    def output(self, name):
        """The TF_Output that a SavedModel calls `operation:index`."""
        operation, _, index = name.partition(":")
        found = self.tf.TF_GraphOperationByName(self.graph, operation.encode())
        return Output(found, int(index))

    def tensor_of(self, array):
        """A TF_Tensor of numbers, or of bytes."""
        kinds = {dtype: number for number, dtype in NUMBERS.items()}
        kind = kinds.get(array.dtype.type, STRING)
        size = array.size * STRING_BYTES if kind == STRING else array.nbytes
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        size = ctypes.c_size_t(size)
        tensor = self.tf.TF_AllocateTensor(kind, shape, array.ndim, size)
        if kind != STRING:
            ctypes.memmove(self.tf.TF_TensorData(tensor), array.ctypes.data, size)
            return tensor
        for string, text in zip(
            self.strings_of(tensor, array.size), array, strict=True
        ):
            self.tf.TF_StringInit(string)
            self.tf.TF_StringCopy(string, text, ctypes.c_size_t(len(text)))
        return tensor

    def array_of(self, tensor):
        """The numbers, or the bytes, in a TF_Tensor."""
        tf, axes = self.tf, range(self.tf.TF_NumDims(tensor))
        shape = [tf.TF_Dim(tensor, axis) for axis in axes]
        kind, size = tf.TF_TensorType(tensor), tf.TF_TensorByteSize(tensor)
        if kind != STRING:
            content = ctypes.string_at(tf.TF_TensorData(tensor), size)
            return np.frombuffer(content, NUMBERS[kind]).reshape(shape)
        texts = [
            ctypes.string_at(tf.TF_StringGetDataPointer(s), tf.TF_StringGetSize(s))
            for s in self.strings_of(tensor, size // STRING_BYTES)
        ]
        return np.array(texts).reshape(shape)

    def strings_of(self, tensor, count):
        """Pointers to the strings of a tensor."""
        first = self.tf.TF_TensorData(tensor).value
        return [Pointer(first + number * STRING_BYTES) for number in range(count)]


def main(job, feeds, answers):
    """Asks every endpoint, and writes {endpoint/output/rows: array}."""
    job = json.loads(pathlib.Path(job).read_text())
    feeds, found = np.load(feeds), {}
    session = Session(job["libraries"], job["path"])
    for endpoint, (feed, outputs) in job["endpoints"].items():
        for rows in (1, len(feeds[endpoint])):
            results = session.ask(feed, feeds[endpoint][:rows], list(outputs.values()))
            for name, result in zip(outputs, results, strict=True):
                found[f"{endpoint}/{name}/{rows}"] = result
    imported = {"keras", "tensorflow", "tf_pseudofeat"} & sys.modules.keys()
    version = session.tf.TF_Version().decode()
    np.savez(answers, version=version, imported=sorted(imported), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
