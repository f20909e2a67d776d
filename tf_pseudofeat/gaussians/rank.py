"""The rank of low-rank covariances: how many directions of each class are kept."""

from tf_pseudofeat.core.validation import whole_number

__all__ = ["check_rank", "resolve_rank"]


_DEFAULT_RANK = 16


def check_rank(covariance_type, rank):
    """Raises for a rank that is no whole number from 1, or not of "low_rank"."""
    if rank is None:
        return
    if covariance_type != "low_rank":
        raise ValueError(
            f"`rank` is the number of directions of covariance_type='low_rank'; "
            f"received rank={rank!r} with {covariance_type!r}. Leave it out."
        )
    whole_number("rank", rank)


def resolve_rank(rank, feature_size):
    """The number of directions to keep of D features; 16 unless D is less."""
    if rank is None:
        return min(_DEFAULT_RANK, feature_size)
    rank = whole_number("rank", rank)
    if rank > feature_size:
        raise ValueError(
            f"`rank` is at most the number of features, {feature_size}; received "
            f"{rank}. Pass a smaller one, or covariance_type='full', which has all "
            f"directions."
        )
    return rank
