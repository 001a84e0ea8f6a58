"""The silhouette, which tells a data team whose clusters are no clusters."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_score

from stages.clean.indicator import normalised
from stages.people.silhouette import silhouettes


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_it_is_scikit_learn_s_for_each_person(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = []
    for _ in range(int(rng.integers(1, 6))):
        count, clusters = int(rng.integers(1, 30)), int(rng.integers(1, 5))
        people.append(
            (normalised(rng.standard_normal((count, 16))), rng.integers(0, clusters, count))
        )
    unit, cluster = (np.concatenate(parts) for parts in zip(*people, strict=True))
    person = np.repeat(np.arange(len(people)), [len(labels) for _, labels in people])
    found = silhouettes(unit, person, cluster, len(people))
    for score, (vectors, labels) in zip(found, people, strict=True):
        different = len(set(labels.tolist()))
        if different == 1:
            assert np.isnan(score)
        elif different < len(labels):
            np.testing.assert_allclose(
                score, silhouette_score(vectors, labels, metric="cosine"), atol=1e-9
            )
        else:
            assert score == 0
