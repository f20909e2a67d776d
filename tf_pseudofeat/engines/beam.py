"""Steps 2 and 3 on a cluster: features and their moments as Apache Beam transforms.

Workers run the trunk over their share of the images, and exchange sums: the moments of
every class, which merge exactly in any order. The head is then retrained on one
machine.

    batches = images | ExtractFeatures("served/1")            # (features, labels)
    batches | WriteFeatureShards("features")
    batches | beam.CombineGlobally(CombineClassMoments(10)) | WriteMoments("m.npz")

Not part of `import tf_pseudofeat`; `pip install 'tf-pseudofeat[beam]'` brings Beam.
"""

try:
    import apache_beam as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        "tf_pseudofeat.engines.beam needs the package apache-beam: "
        "pip install 'tf-pseudofeat[beam]'."
    ) from error

from tf_pseudofeat.engines.beam_batches import BatchRows
from tf_pseudofeat.engines.beam_features import ExtractFeatures, FeaturesModelHandler
from tf_pseudofeat.engines.beam_moments import (
    ClassMomentsCoder,
    CombineClassMoments,
    WriteMoments,
)
from tf_pseudofeat.engines.beam_shards import WriteFeatureShards

__all__ = [
    "BatchRows",
    "ClassMomentsCoder",
    "CombineClassMoments",
    "ExtractFeatures",
    "FeaturesModelHandler",
    "WriteFeatureShards",
    "WriteMoments",
]
