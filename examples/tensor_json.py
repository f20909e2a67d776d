"""Tensors as JSON, by the rules of TensorFlow Serving's REST API.

A request has its examples as rows, {"instances": [...]}, and is answered with
"predictions"; or its tensors as wholes, {"inputs": ...}, answered with "outputs". A
single input or output goes without its name. Bytes are {"b64": "..."}: always so in an
output whose name ends in `_bytes`, other strings are text. NaN and Infinity stand bare,
as Python and TensorFlow Serving read and write them.

References:
    - [tensorflow.org/tfx/serving/api_rest](https://www.tensorflow.org/tfx/serving/api_rest)
"""

import base64
import binascii
import json

import numpy as np
import tensorflow as tf

__all__ = ["answer", "inputs_of", "parse"]


def parse(body):
    """The request in the body, a dict with either "instances" or "inputs"."""
    try:
        request = json.loads(body)
    except RecursionError:
        raise _invalid("The body is nested too deeply.") from None
    except ValueError as error:
        raise _invalid(f"The body is not JSON: {error}.") from None
    if not isinstance(request, dict):
        raise _invalid(f"The body is {_kind(request)}; expected an object.")
    if ("instances" in request) == ("inputs" in request):
        raise _invalid(
            f"Received the keys {sorted(request)}; "
            f'expected either "instances" (rows) or "inputs" (columns).'
        )
    if not isinstance(request.get("signature_name", ""), str):
        raise _invalid('"signature_name" is not a string.')
    return request


def inputs_of(request, signature):
    """The tensors of a request.

    Args:
        request: as `parse` gives it.
        signature: `SignatureDef` that tells names and types.

    Returns:
        inputs: {name: array}.
    """
    if "inputs" in request:
        columns = request["inputs"]
        if not isinstance(columns, dict) or _is_bytes(columns):
            columns = {_single_input(signature): columns}
    else:
        columns = _columns_of(request["instances"], signature)
    _check_names(columns, signature)
    return {
        name: _array(name, value, tf.as_dtype(signature.inputs[name].dtype))
        for name, value in columns.items()
    }


def answer(outputs, by_rows):
    """The body that answers a request.

    Args:
        outputs: {name: array}.
        by_rows: whether it had "instances".

    Returns:
        body: JSON in bytes.
    """
    columns = {name: _plain(name, value) for name, value in outputs.items()}
    if not by_rows:
        body = {"outputs": _unnamed(columns)}
    else:
        sizes = {name: np.shape(value)[:1] for name, value in outputs.items()}
        if len(set(sizes.values())) > 1 or () in sizes.values():
            raise _invalid(
                f"The outputs have no common number of rows ({sizes}); "
                f'ask for columns, with "inputs".'
            )
        rows = zip(*columns.values(), strict=True)
        named = (dict(zip(columns, row, strict=True)) for row in rows)
        body = {"predictions": list(map(_unnamed, named))}
    return json.dumps(body).encode()


def _columns_of(instances, signature):
    """{name: list of the rows' values}."""
    if not isinstance(instances, list) or not instances:
        raise _invalid(
            f'"instances" is {_kind(instances)}; expected a list of one or more rows.'
        )
    if not isinstance(instances[0], dict) or _is_bytes(instances[0]):
        return {_single_input(signature): instances}
    for number, row in enumerate(instances):
        if not isinstance(row, dict) or row.keys() != instances[0].keys():
            raise _invalid(
                f"Row {number} of the instances is not an object with the keys of the "
                f"first, {sorted(instances[0])}."
            )
        _check_names(row, signature)
    return {name: [row[name] for row in instances] for name in instances[0]}


def _single_input(signature):
    if len(signature.inputs) != 1:
        raise _invalid(
            f"Inputs without names, and the signature has {len(signature.inputs)}: "
            f"{sorted(signature.inputs)}. Name them."
        )
    return next(iter(signature.inputs))


def _check_names(columns, signature):
    if set(columns) != set(signature.inputs):
        raise _invalid(
            f"Received the inputs {sorted(columns)}; "
            f"expected {sorted(signature.inputs)}."
        )


def _array(name, value, dtype):
    """Nested lists as an array; nothing is converted that JSON tells apart."""
    accepted = {str, dict} if dtype == tf.string else {int}
    if dtype.is_bool:
        accepted = {bool}
    elif dtype.is_floating:
        accepted = {int, float}
    elif not dtype.is_integer and dtype != tf.string:
        raise _invalid(f"Input {name!r} is {dtype.name}, which JSON cannot hold.")
    try:
        array = np.array(value, dtype=object)
    except ValueError:
        raise _ragged(name) from None
    kinds = {type(element) for element in array.ravel()}
    if list in kinds:
        raise _ragged(name)
    if not kinds <= accepted:
        wrong = next(x for x in array.ravel() if type(x) not in accepted)
        raise _invalid(f"Input {name!r} is {dtype.name}; received {_kind(wrong)}.")
    if dtype == tf.string:
        elements = [_bytes(name, element) for element in array.ravel()]
        return np.array([*elements, None], object)[:-1].reshape(array.shape)
    try:
        # NumPy 1 would wrap 300 around to 44 in uint8.
        fits = not dtype.is_integer or all(
            dtype.min <= number <= dtype.max for number in array.ravel()
        )
        if fits:
            return array.astype(dtype.as_numpy_dtype)
    except OverflowError:  # a whole number above the largest float
        pass
    raise _invalid(f"Input {name!r}: a number is not in {dtype.name}.")


def _ragged(name):
    return _invalid(
        f"Input {name!r} is not a regular array: its lists are of different lengths or "
        f"nested too deeply."
    )


def _is_bytes(value):
    return isinstance(value, dict) and value.keys() == {"b64"}


def _bytes(name, value):
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not _is_bytes(value) or not isinstance(value["b64"], str):
        raise _invalid(f'Input {name!r}: bytes are {{"b64": "..."}}, and nothing else.')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(f"Input {name!r} is not base64: {error}.") from None


def _kind(value):
    """A JSON value in words, cut short."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value[:40] if isinstance(value, str) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _plain(name, array):
    """An array as what `json` can write."""
    array = np.asarray(array)
    if array.dtype == object:
        as_text = (
            (lambda x: {"b64": base64.b64encode(x).decode()})
            if name.endswith("_bytes")
            else (lambda x: x.decode("utf-8", "replace"))
        )
        texts = [as_text(element) for element in array.ravel()]
        return np.array([*texts, None], object)[:-1].reshape(array.shape).tolist()
    if array.dtype.kind not in "biuf":  # bfloat16 and its kin
        array = array.astype(np.float64)
    return array.tolist()


def _unnamed(named):
    return next(iter(named.values())) if len(named) == 1 else named


def _invalid(message):
    return tf.errors.InvalidArgumentError(None, None, message)
