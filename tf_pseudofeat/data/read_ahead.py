"""Reads the items of a `PyDataset` in order, ahead of time in threads."""

import collections
import concurrent.futures

__all__ = ["read_items"]


def read_items(data, count):
    """Yields `data[0]` to `data[count - 1]`.

    If `workers` is more than 1, as many threads read ahead, with at most
    `max_queue_size` items in progress or waiting. `use_multiprocessing` is ignored:
    threads need no copy of the data. On close or on an error, the generator waits for
    the items in progress and ends its threads.

    Args:
        data: `keras.utils.PyDataset`.
        count: number of items.

    Raises:
        RuntimeError: If an item raises StopIteration, which would look like the end.
            Other errors of items are propagated.
    """
    ahead = max(1, data.max_queue_size or data.workers)  # 0 means no limit in Keras
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
            f"which would end the iteration silently. `__getitem__` must return a "
            f"batch for each index below `num_batches`."
        ) from error
