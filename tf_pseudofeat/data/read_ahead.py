"""The items of a `PyDataset` in order, some of them ahead of time in threads."""

import collections
import concurrent.futures

__all__ = ["read_items"]


def read_items(data, count):
    """Yields `data[0]` to `data[count - 1]`.

    With more than one of `workers` they are read ahead by as many threads, of which at
    most `max_queue_size` items are under way or waiting. `use_multiprocessing` changes
    nothing: the threads of one process need no copy of the data. Closed, or left with
    an error, it waits for the items under way and ends its threads.

    Args:
        data: `keras.utils.PyDataset`.
        count: number of items.

    Raises:
        RuntimeError: An item raises StopIteration, which would pass for the end.
            Any other error of an item comes through as it is.
    """
    ahead = max(1, data.max_queue_size or data.workers)  # 0 is no bound in Keras
    workers = min(data.workers, ahead, count)
    if workers <= 1:
        for index in range(count):
            yield _item(data, index, count)
        return
    pool = concurrent.futures.ThreadPoolExecutor(workers, "tf_pseudofeat-items")
    items = collections.deque()
    try:
        for index in range(count):
            items.append(pool.submit(_item, data, index, count))
            if len(items) == ahead:
                yield items.popleft().result()
        while items:
            yield items.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _item(data, index, count):
    try:
        return data[index]
    except StopIteration as error:
        raise RuntimeError(
            f"Item {index} of the {count} of the PyDataset raised StopIteration, "
            f"which would end the reading in silence. Let `__getitem__` return a batch "
            f"for each index below `num_batches`, or make that smaller."
        ) from error
