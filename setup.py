"""Installs `tf-pseudofeat`."""

import pathlib
import runpy

import setuptools

_HERE = pathlib.Path(__file__).parent
# Run by its path: importing the package would import TensorFlow.
_VERSION = runpy.run_path(str(_HERE / "tf_pseudofeat" / "version.py"))["__version__"]
_README = _HERE / "README.md"

_BEAM = ["apache-beam>=2.77"]
_EXAMPLES = [
    "importlib_resources>=6.0",  # TFDS 4.9.10 imports it and does not require it
    "matplotlib>=3.8",
    "protobuf>=6.31.1",  # with less, TFDS imports as an empty module
    "tensorflow-datasets>=4.9.10",
]
_JAX = ["jax>=0.5.0"]
_SERVING = [
    "ai-edge-litert>=2.0",
    "aiohttp>=3.13.1",  # run_app takes auto_decompress
    "grpcio>=1.70",
    "onnxruntime>=1.22",
    "openvino>=2025.2",
    "protobuf>=6.31.1",
    "tensorflow-serving-api>=2.20",
    "tf2onnx>=1.17",
]

setuptools.setup(
    name="tf-pseudofeat",
    version=_VERSION,
    description="Retrains a Keras classifier's head on Gaussian pseudo-features",
    long_description=_README.read_text(encoding="utf-8") if _README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=setuptools.find_packages(include=["tf_pseudofeat*"]),
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=1.4",
        "imbalanced-learn>=0.14.1",  # 0.14.0 does not import with scikit-learn 1.9
        "keras>=3.12",
        "ml-dtypes>=0.5.1",  # as TensorFlow
        "numpy>=1.26",
        "scikit-learn>=1.6.1",
        "scipy>=1.11.4",
        "tensorflow>=2.20",
        "tensorflow-probability>=0.25",
        "tf-keras>=2.20",  # TensorFlow Probability does not import without it
    ],
    extras_require={
        "and-cuda": ["tensorflow[and-cuda]"],
        "beam": _BEAM,
        "examples": _EXAMPLES,
        "jax": _JAX,
        "serving": _SERVING,
        "test": [
            *_BEAM,
            *_EXAMPLES,
            *_JAX,
            *_SERVING,
            "hypothesis",
            "keras-hub",
            "pandas",  # imbalanced-learn's checks of its samplers skip without it
            "pillow",
            "playwright",
            "pytest",
            "pytest-xdist",
            "ruff",
            "setuptools",
        ],
    },
    # The default, `build/`, is the file `BUILD` where case does not count.
    options={"build": {"build_base": ".build"}},
)
