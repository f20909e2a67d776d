"""Tests for read_ahead.py: items in order, read by several threads."""

import threading

import keras
import pytest

from tf_pseudofeat.data.read_ahead import read_items


class Items(keras.utils.PyDataset):
    """Numbers; notes which were read, and by which threads."""

    def __init__(self, fails_at=None, error=OSError, **settings):
        super().__init__(**settings)
        self.fails_at, self.error = fails_at, error
        self.read, self.threads = [], set()

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index == self.fails_at:
            raise self.error("gone")
        self.read.append(index)
        self.threads.add(threading.current_thread())
        return index


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("queue", [0, 2, 50])
def test_items_come_in_order(workers, queue):
    items = Items(workers=workers, max_queue_size=queue)
    assert list(read_items(items, 20)) == list(range(20))
    own = {threading.current_thread()}
    assert (items.threads == own) == (workers < 2)
    assert len(items.threads) <= max(1, workers)
    assert not any(thread.is_alive() for thread in items.threads - own)


def test_no_more_are_read_ahead_than_the_queue_holds():
    items = Items(workers=2, max_queue_size=4)
    reader = read_items(items, 20)
    assert next(reader) == 0
    reader.close()  # waits for what is being read
    assert set(items.read) <= set(range(4))
    assert not any(thread.is_alive() for thread in items.threads)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_of_an_item_comes_in_its_place(workers):
    reader = read_items(Items(fails_at=5, workers=workers), 20)
    assert [next(reader) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="gone"):
        next(reader)


@pytest.mark.parametrize("workers", [1, 3])
def test_stopiteration_does_not_end_the_data_silently(workers):
    items = Items(fails_at=2, error=StopIteration, workers=workers)
    with pytest.raises(RuntimeError, match="Item 2 of the 20 of the PyDataset raised"):
        list(read_items(items, 20))
