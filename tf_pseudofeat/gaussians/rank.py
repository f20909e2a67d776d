"""The rank of low-rank covariances: the number of directions of each class."""

from tf_pseudofeat.core.validation import whole_number

__all__ = ["check_rank", "resolve_rank"]


_DEFAULT_RANK = 16


def check_rank(covariance_type, rank):
    """Raises ValueError if `rank` is invalid, or the type is not "low_rank"."""
    if rank is None:
        return
    if covariance_type != "low_rank":
        raise ValueError(
            f"`rank` is the number of directions of covariance_type='low_rank'; "
            f"received rank={rank!r} with {covariance_type!r}. Leave it out."
        )
    whole_number("rank", rank)


def resolve_rank(rank, feature_size):
    """Returns the number of directions for D features; by default 16, or D if less."""
    if rank is None:
        return min(_DEFAULT_RANK, feature_size)
    rank = whole_number("rank", rank)
    if rank > feature_size:
        raise ValueError(
            f"`rank` must be at most the number of features, {feature_size}; received "
            f"{rank}. Pass a smaller one, or covariance_type='full', which has all "
            f"directions."
        )
    return rank
