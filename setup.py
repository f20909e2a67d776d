"""Installs `tf-pseudofeat`: all that it is stands in `pyproject.toml`."""

import setuptools

# The default, `build/`, is the file `BUILD` where case does not count.
setuptools.setup(options={"build": {"build_base": ".build"}})
