"""What `examples.serve` imports, where neither Keras nor tf_pseudofeat is installed."""

import sys

for _name in ("keras", "tf_keras", "tf_pseudofeat", "tensorflow_probability"):
    sys.modules[_name] = None

from examples import grpc_service, request_checks, rest_service  # noqa: E402, F401
