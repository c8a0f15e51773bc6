"""The exceptions of the library: every user error is a PipelineError.

PipelineError
├── SettingsError    a setting is unknown, misspelt or impossible
├── CatalogError     the input files cannot be read, joined or trusted
├── FeatureError     features do not fit what the model was trained on
├── TrainingError    training cannot start, or diverged
├── ModelError       a model file is damaged, foreign or too new
├── ArtifactError    a published directory is missing, incomplete or changed
└── WorkerError      a process that scores has ended before its work

A message gives the fact, the value, the place and the remedy.
"""


class PipelineError(Exception):
    """Anything that goes wrong for a reason that the user can mend."""


class SettingsError(PipelineError):
    """A setting is unknown, misspelt or impossible."""


class CatalogError(PipelineError):
    """The input files cannot be read, joined or trusted."""


class FeatureError(PipelineError):
    """Features or indexes do not fit the table that they address."""


class TrainingError(PipelineError):
    """Training cannot start, or has diverged."""


class ModelError(PipelineError):
    """A model file is damaged, foreign or of another format version."""


class ArtifactError(PipelineError):
    """A published directory is missing, incomplete or not what its manifest says."""


class WorkerError(PipelineError):
    """A process that scores has ended before its work was done."""
