"""Destinations of extracted features: memory, or folders in `cache_dir`."""

import contextlib
import pathlib
import shutil

from tf_pseudofeat.core.files import missing_folders, remove_empty
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.extraction.shard_folder import check_free
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.extraction.shard_writer import ShardWriter, new_set

__all__ = ["FeatureSinks", "all_sets_or_none", "check_cache"]


def check_cache(cache_dir):
    """Raises, before any pass, if not all sets can be written to `cache_dir`."""
    check_free(cache_dir)
    for folder in _sets_in(cache_dir):
        check_free(folder)


@contextlib.contextmanager
def all_sets_or_none(cache_dir):
    """Context manager that removes new sets in `cache_dir` on an error or interrupt."""
    if cache_dir is None:
        yield
        return
    missing = missing_folders(pathlib.Path(cache_dir))
    try:
        yield
    except BaseException:
        for folder in _sets_in(cache_dir):
            shutil.rmtree(folder)
        remove_empty(missing)
        raise


def _sets_in(cache_dir):
    patterns = "training", "validation", "view-*"
    return [path for name in patterns for path in pathlib.Path(cache_dir).glob(name)]


class FeatureSinks:
    """Collects the features of each view in memory, or in folders of `cache_dir`.

    Args:
        cache_dir: folder, or None for memory.
        names: name of the subfolder for features without views, and format of those for
            views; None to write all to one set.
    """

    def __init__(self, cache_dir, names):
        self._cache_dir, self._names = cache_dir, names
        self._parts, self._writers, self._folders = [], [], []
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self._stack.__enter__()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def open(self, num_views):
        """Prepares for a number of views; 0 for features without views."""
        self._parts = [[] for _ in range(num_views or 1)]
        if self._cache_dir is None:
            return
        if self._names is None:
            self._folders = [self._stack.enter_context(new_set(self._cache_dir))]
            prefixes = [f"view-{v:03d}" for v in range(num_views)]
            prefixes = prefixes if num_views > 1 else [""]
            folders = self._folders * len(prefixes)
        else:
            plain, view = self._names
            names = [view.format(v) for v in range(num_views)] or [plain]
            self._folders = folders = [
                self._stack.enter_context(new_set(pathlib.Path(self._cache_dir) / name))
                for name in names
            ]
            prefixes = [""] * len(folders)
        self._writers = [
            self._stack.enter_context(ShardWriter(folder, prefix=prefix))
            for folder, prefix in zip(folders, prefixes, strict=True)
        ]

    def add(self, view, part):
        """Adds `LabeledFeatures` to a view."""
        if self._writers:
            self._writers[view].write(part)
        else:
            self._parts[view].append(part)

    def views(self):
        """`LabeledFeatures` of each view."""
        if self._folders:
            # They were just written, so there is no need to verify them.
            return [load_features(folder, verify=False) for folder in self._folders]
        return [LabeledFeatures.concatenate(parts) for parts in self._parts]

    def all_views(self):
        """`LabeledFeatures` of all views, concatenated."""
        return LabeledFeatures.concatenate(self.views())
