"""Where extracted features go: to memory, or to folders of `cache_dir`."""

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
    """Raises, before any pass, where not all sets can be written to `cache_dir`."""
    check_free(cache_dir)
    for folder in _sets_in(cache_dir):
        check_free(folder)


@contextlib.contextmanager
def all_sets_or_none(cache_dir):
    """Removes what was written to a checked `cache_dir` on an error or an interrupt."""
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
    """Where the features of each view go: to memory, or to folders of `cache_dir`.

    Args:
        cache_dir: folder, or None for memory.
        names: of the folder in it for plain features, and of those for views; None
            where all are one set.
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
        """Makes room for views; 0 is for the examples as they are."""
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
            # They were written just now: to read them all again would see no more.
            return [load_features(folder, verify=False) for folder in self._folders]
        return [LabeledFeatures.concatenate(parts) for parts in self._parts]

    def all_views(self):
        """`LabeledFeatures` of all views, one after the other."""
        return LabeledFeatures.concatenate(self.views())
