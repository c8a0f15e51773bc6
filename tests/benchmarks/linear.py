"""The linear models to beat: TF-IDF and scikit-learn's LinearSVC with its defaults, one for each level.

Every function takes the rows of a data set and returns the labels predicted for those in `test`, (n_test, n_levels);
whole paths are predicted besides by one LinearSVC over the paths ("flat").
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

Labels = NDArray[Any]  # (n, n_levels) names of labels
Block = tuple[Callable[[Any], Any], dict[str, Any]]  # what is read of a row, and how it is counted


def products_blocks(*, min_df: int) -> list[Block]:
    """Return name words 1-2, name characters 3-5, category words 1-2, words of 400 characters of the description."""
    return [
        (lambda row: row.Name or "", {"ngram_range": (1, 2), "min_df": min_df}),
        (lambda row: row.Name or "", {"analyzer": "char_wb", "ngram_range": (3, 5), "min_df": min_df}),
        (lambda row: html.unescape(unquote(row.CategoryText or "")), {"ngram_range": (1, 2), "min_df": min_df}),
        (lambda row: (row.Description or "")[:400], {"min_df": min_df}),
    ]


def articles_blocks(*, pairs: bool) -> list[Block]:
    """Return the words of the text, or its words and pairs of words that two articles share."""
    return [(lambda row: row.text, {"ngram_range": (1, 2), "min_df": 2} if pairs else {})]


def movies_blocks(*, words: bool) -> list[Block]:
    """Return whole tags, or their words."""
    return [(lambda row: row.tags, {"analyzer": (lambda tags: " ".join(tags).split()) if words else tuple})]


def features(training: pd.DataFrame, test: pd.DataFrame, blocks: Sequence[Block]) -> tuple[Any, Any]:
    """Return the TF-IDF matrices of both parts, fitted on the first."""
    pairs = []
    for read, options in blocks:
        vectorizer = TfidfVectorizer(sublinear_tf=True, **options)
        rows = [[read(row) for row in part.itertuples()] for part in (training, test)]
        pairs.append((vectorizer.fit_transform(rows[0]), vectorizer.transform(rows[1])))
    return hstack([pair[0] for pair in pairs]).tocsr(), hstack([pair[1] for pair in pairs]).tocsr()


def predict(training: pd.DataFrame, test: pd.DataFrame, levels: Sequence[str], blocks: Sequence[Block]) -> Labels:
    """Return the label that LinearSVC predicts at each level by itself, (n_test, n_levels)."""
    seen, unseen = features(training, test, blocks)
    return np.stack([LinearSVC().fit(seen, training[level]).predict(unseen) for level in levels], axis=1)


def predict_paths(training: pd.DataFrame, test: pd.DataFrame, levels: Sequence[str], blocks: Sequence[Block]) -> Labels:
    """Return the path that one LinearSVC over all paths predicts, (n_test, n_levels)."""
    seen, unseen = features(training, test, blocks)
    paths, code = np.unique(training[list(levels)].to_numpy(dtype=str), axis=0, return_inverse=True)
    return paths[LinearSVC().fit(seen, code.ravel()).predict(unseen)]
