"""What was measured, as numbers and as curves."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.metrics.verification import (
    Scores,
    at_far,
    equal_error,
    indicator_scores,
    pair_scores,
    usable,
)
from eval.recognition.measure import Measured
from eval.recognition.thresholds import CleanThresholds, TooFew, clean_thresholds

FARS = (1e-2, 1e-3, 1e-4)


def report(measured: Measured) -> dict[str, Any]:
    """What was measured, as numbers: detection, and for every recogniser verification on undisputed
    and on all labels.
    """
    readable = measured.found >= 0
    counted = [
        (photo, int(found))
        for photo, found in zip(measured.photographs, measured.found, strict=True)
        if photo.faces is not None
    ]
    wrong = [
        {"file": str(photo.path), "labelled": photo.faces, "found": found}
        for photo, found in counted
        if photo.faces != found
    ]
    detection = {
        "photographs": len(measured.photographs),
        "unreadable": measured.unreadable,
        "with_face": int((measured.found > 0).sum()),
        "share_with_face": float((measured.found[readable] > 0).mean()) if readable.any() else None,
        "without_face": [
            str(photo.path)
            for photo, found in zip(measured.photographs, measured.found, strict=True)
            if found == 0
        ],
        "counted": len(counted),
        "count_agrees": len(counted) - len(wrong),
        "count_differs": wrong,
    }
    return {
        "detection": detection,
        "recognisers": {
            name: _recogniser(measured, vectors) for name, vectors in measured.vectors.items()
        },
    }


def _recogniser(measured: Measured, vectors: np.ndarray) -> dict[str, Any]:
    photographs = measured.photographs
    named = np.array([photo.person is not None for photo in photographs], dtype=bool)
    person = np.array([photo.person or "" for photo in photographs], dtype=object)
    undisputed = np.array([photo.undisputed for photo in photographs], dtype=bool)
    chosen = {"all": named}
    if not undisputed[named].all():
        chosen = {"undisputed": named & undisputed, **chosen}
    sets = {name: _verification(vectors[mask], person[mask]) for name, mask in chosen.items()}
    alone = named & undisputed & (measured.found == 1)
    try:
        thresholds: CleanThresholds | None = clean_thresholds(vectors[alone], person[alone])
        said = None
    except TooFew as error:
        thresholds, said = None, str(error)
    return {
        "verification": sets,
        "thresholds": None
        if thresholds is None
        else {**asdict(thresholds), "source": thresholds.source},
        "thresholds_lack": said,
    }


def _verification(vectors: np.ndarray, person: np.ndarray) -> dict[str, Any]:
    return {
        "photographs": len(person),
        "people": len(np.unique(person)),
        "without_vector": int((~usable(vectors)).sum()),
        "pairs": _summary(pair_scores(vectors, person)),
        "image_to_indicator": _summary(indicator_scores(vectors, person)),
    }


def _summary(scores: Scores) -> dict[str, Any]:
    rate, threshold = equal_error(scores)
    # A rate that is less than one impostor of all that there are cannot be measured.
    points = [at_far(scores, far) for far in FARS if far * len(scores.impostor) >= 1]
    return {
        "genuine": len(scores.genuine),
        "impostor": len(scores.impostor),
        "tar_at_far": [asdict(point) for point in points],
        "equal_error": None if math.isnan(rate) else {"rate": rate, "threshold": threshold},
    }


def curves(measured: Measured) -> dict[str, Scores]:
    """The scores of all pairs by recogniser, for a ROC: of undisputed labels where some are
    disputed.
    """
    kept = np.array(
        [photo.person is not None and photo.undisputed for photo in measured.photographs],
        dtype=bool,
    )
    person = np.array([photo.person or "" for photo in measured.photographs], dtype=object)
    return {
        name: pair_scores(vectors[kept], person[kept]) for name, vectors in measured.vectors.items()
    }
