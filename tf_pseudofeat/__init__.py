"""Pseudo-features for the rare classes of a Keras classifier.

Konno and Iwazume, "Pseudo-Feature Generation for Imbalanced Data Analysis in Deep
Learning", arXiv 1807.06538, 2018.
"""

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.evaluation.choose_thresholds import choose_thresholds
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.metrics import (
    BalancedAccuracy,
    GeometricMean,
    MeanMinorityAccuracy,
    MinClassAccuracy,
)
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.evaluation.probability_scores import (
    expected_calibration_error,
    probability_scores,
)
from tf_pseudofeat.evaluation.scores import (
    accuracy,
    balanced_accuracy,
    class_recalls,
    classification_scores,
    geometric_mean,
    mean_minority_accuracy,
    min_class_accuracy,
)
from tf_pseudofeat.evaluation.thresholds import Thresholds
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.extraction.shard_writer import ShardWriter, write_index
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import CovarianceReport, estimate_covariance
from tf_pseudofeat.gaussians.moments import ClassMoments
from tf_pseudofeat.gaussians.moments_estimation import moments_of, moments_of_batches
from tf_pseudofeat.gaussians.moments_file import load_moments, save_moments
from tf_pseudofeat.gaussians.moments_merge import merge_moments
from tf_pseudofeat.head.balanced_losses import (
    BalancedSoftmax,
    ClassBalancedCrossentropy,
)
from tf_pseudofeat.head.fit import fit_head
from tf_pseudofeat.head.logit_adjustment import adjust_logits
from tf_pseudofeat.head.material import Material, prepare_material
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.retraining.callback import PseudoFeatureHeadRetrainer
from tf_pseudofeat.retraining.classifier import PseudoFeatureClassifier
from tf_pseudofeat.retraining.diagnose import Diagnosis, diagnose
from tf_pseudofeat.retraining.remedies import Remedy
from tf_pseudofeat.retraining.report import RetrainingReport
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.retraining.search import Trial, Tuning
from tf_pseudofeat.retraining.tune import tune
from tf_pseudofeat.sampling.counts import class_counts, multiply_minority, pseudo_counts
from tf_pseudofeat.sampling.interleave import interleave
from tf_pseudofeat.sampling.oversamplers import (
    GaussianOverSampler,
    PerturbedOverSampler,
)
from tf_pseudofeat.serving.export import export_classifier, next_version
from tf_pseudofeat.splitting.separating import SeparatingLayer, separating_layers
from tf_pseudofeat.splitting.split_at import split_at
from tf_pseudofeat.splitting.trunk_and_head import Split
from tf_pseudofeat.version import __version__

__all__ = [
    "BalancedAccuracy",
    "BalancedSoftmax",
    "ClassBalancedCrossentropy",
    "ClassConditionalGaussian",
    "ClassMoments",
    "CovarianceReport",
    "Diagnosis",
    "Extraction",
    "GaussianOverSampler",
    "GeometricMean",
    "Guard",
    "HeadRecipe",
    "LabeledFeatures",
    "Material",
    "MeanMinorityAccuracy",
    "MinClassAccuracy",
    "PerturbedOverSampler",
    "Predictions",
    "PseudoFeatureClassifier",
    "PseudoFeatureHeadRetrainer",
    "Remedy",
    "RetrainingReport",
    "SeparatingLayer",
    "ShardWriter",
    "Split",
    "StoredArray",
    "Task",
    "Thresholds",
    "Trial",
    "Tuning",
    "__version__",
    "accuracy",
    "adjust_logits",
    "balanced_accuracy",
    "choose_thresholds",
    "class_counts",
    "class_recalls",
    "classification_scores",
    "diagnose",
    "estimate_covariance",
    "expected_calibration_error",
    "export_classifier",
    "extract_features",
    "fit_head",
    "geometric_mean",
    "interleave",
    "load_features",
    "load_moments",
    "mean_minority_accuracy",
    "merge_moments",
    "min_class_accuracy",
    "moments_of",
    "moments_of_batches",
    "multiply_minority",
    "next_version",
    "prepare_material",
    "probability_scores",
    "pseudo_counts",
    "retrain_head",
    "save_moments",
    "separating_layers",
    "split_at",
    "tune",
    "write_index",
]
