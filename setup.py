"""Installs `tf-pseudofeat`, as `pyproject.toml` says; PyPI shows the README."""

import pathlib
import re
import tomllib

import setuptools

HERE = pathlib.Path(__file__).parent


def page(readme, scripts, source=None):
    """The README as PyPI shows it: for who has installed the package, and no checkout.

    Args:
        readme: str. What stands between lines <!-- checkout --> and <!-- /checkout -->
            is left out.
        scripts: names of commands, such as "tf-pseudofeat-serve".
        source: URL of the repository, where relative links then lead. With None such
            links are their text alone, and there are no pictures.

    Returns:
        page: str.
    """

    def command(match):
        script = f"tf-pseudofeat-{match[1].replace('_', '-')}"
        module = f"python -m tf_pseudofeat_examples.{match[1]}"
        return script if script in scripts else module

    def link(match):
        mark, text, path = match.groups()
        if source is None:
            return "" if mark else text
        return f"{mark}[{text}]({source}/{'raw' if mark else 'blob'}/main/{path})"

    parts = re.compile(r"^<!-- checkout -->\n.*?^<!-- /checkout -->\n", re.M | re.S)
    text = parts.sub("", readme)
    text = re.sub(r'pip install -e "\.(.*?)"', r'pip install "tf-pseudofeat\1"', text)
    text = re.sub(r"python -m examples\.(\w+)", command, text)
    return re.sub(r"(!?)\[([^]]*)\]\((?!\w+:|#)([^)\s]+)\)", link, text)


def _page():
    project = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["project"]
    readme = (HERE / "README.md").read_text("utf-8")
    return page(readme, project["scripts"], project["urls"].get("Source"))


if __name__ == "__main__":
    setuptools.setup(
        long_description=_page(),
        long_description_content_type="text/markdown",
        # The default, `build/`, is the file `BUILD` where case does not count.
        options={"build": {"build_base": ".build"}},
    )
