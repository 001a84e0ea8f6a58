"""The thresholds that `clean` takes when a DAG gives none: cosines mean something else in every
recogniser's space.

Measured on 695 photographs of 58 people, with one face and an undisputed label each, mostly 250 x
250 news images; arcface5 from scrfd (2.5g, scales 640 and 320), dlib5 from dlib. The indicator of
a person is the unit mean of their vectors. `similarity_threshold`: a person's own photographs
against the indicator of the others (695), and everybody's against every other person's indicator
(39 615). `merge_cosine`: 654 faces of the 47 people with six photographs or more, split by
spherical k-means with k = 4 for want of groups; how many faces are not linked to the person's
largest cluster, and how many of the 1 081 pairs of people would be linked.

`join_cosine`: 699 photographs of 56 people with five or more (dlib: 780 of 57), own and everybody
else's (41 749; 46 872) against the indicators: above every stranger, and halfway to the lowest own
one where there is a gap. `duplicate_cosine`: 190 photographs, halved, compressed to quality 50,
made brighter, cut by 5 and by 15 % against themselves; and all pairs of different photographs of
one person. `vote_cosine`: 140 to 154 photographs, compressed to quality 40, halved, cut, mirrored
and grey against themselves, and the nearest different photographs of one person.

`same_cosine`, `near_cosine`: indicators of 84 people after cleaning (dlib: 83), all 3 486 pairs;
and indicators of halves of the photographs of one person, 20 times at random, of 54 people with
three in each half, 45 with five.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Calibration:
    """Limits of one recogniser's space; `source` says how they came about."""

    similarity_threshold: float
    """Least cosine between a face and the indicator of its person."""
    merge_cosine: float
    """Least mean cosine between the faces of two clusters of one person (the product of the
    clusters' plain means).
    """
    source: str
    join_cosine: float | None = None
    """Least cosine between a face and an indicator at which it is that person, whatever cluster it
    was put into.
    """
    duplicate_cosine: float | None = None
    """Least cosine between two faces that must be from one photograph."""
    vote_cosine: float | None = None
    """Least cosine between two faces that may be from one photograph."""
    same_cosine: float | None = None
    """Least cosine between the indicators of two names that are one person."""
    propose_cosine: float | None = None
    """Least cosine between the indicators of two names that may be one person: somebody should
    look.
    """
    near_cosine: float | None = None
    """Least cosine between the indicators of people who are alike: relatives, lookalikes, few and
    poor photographs.
    """


CALIBRATION: dict[str, Calibration] = {
    # All dlib vectors point into one cone (strangers: median 0.85), which squeezes the scale but
    # not the order: raw cosines lose as few faces here as the other spaces, so no mean is
    # subtracted and vectors stay the published ones. Sisters (0.935 by mean cosine) are linked; no
    # limit separates them without cutting up other people.
    "dlib_resnet_v1": Calibration(
        0.94,
        0.93,
        "own photographs below: 1 of 695, strangers above: 34 of 39615; merge cuts off 3 of 654, "
        "links 1 pair of 1081",
        # Strangers reach 0.964 (sisters); own photographs go down to 0.914. Different photographs
        # of one person reach 0.995.
        join_cosine=0.965,
        duplicate_cosine=0.997,
        # 95 of 100 cut copies have 0.993 and more (mirrored and grey ones less: their hashes tell);
        # of different photographs of one person 4 pairs in 3 508 come so near.
        vote_cosine=0.992,
        # Indicators of different people reach 0.971 (sisters; 0.945 else), halves of one person
        # with three photographs fall to 0.960 (one in a hundred below 0.969), with five to 0.975.
        same_cosine=0.975,
        propose_cosine=0.97,
        near_cosine=0.95,
    ),
    # Wide gap: strangers reach 0.417, all but one own photograph 0.50 (that one shows somebody
    # larger beside the person); the limit lies in the middle of it.
    # Two people's clusters reach 0.332 (sisters), clusters of one person need 0.417.
    "edgeface_xs": Calibration(
        0.45,
        0.38,
        "own photographs below: 1 of 695, strangers above: 0 of 39615; merge cuts off 1 of 654, "
        "links 0 pairs of 1081",
        # Strangers reach 0.417 (sisters), own photographs go down to 0.500. Different photographs
        # of one person reach 0.951, a copy that was cut has 0.957 and more in 95 of 100.
        join_cosine=0.45,
        duplicate_cosine=0.97,
        # 94 to 99 of 100 versions have 0.95 and more (cut 0.944, grey 0.948, mirrored 0.975 in 95
        # of 100); of different photographs of one person none of 2 876 pairs did but those that are
        # versions.
        vote_cosine=0.95,
        # Indicators of different people reach 0.459 (sisters; 0.317 else). Halves of three
        # photographs fall to 0.388 (one in a hundred below 0.643), of five to 0.501 (one in a
        # hundred below 0.747): the person with two visual groups.
        same_cosine=0.60,
        # Above everybody else by 0.04 (sisters), by 0.18 else.
        propose_cosine=0.50,
        near_cosine=0.40,
    ),
    # Strangers reach 0.528; two people's clusters 0.398 (sisters).
    "mobilefacenet_128d": Calibration(
        0.42,
        0.41,
        "own photographs below: 3 of 695, strangers above: 13 of 39615; merge cuts off 5 of 654, "
        "links 0 pairs of 1081",
        # Strangers reach 0.528 (sisters; 0.429 else), own photographs go down to 0.380.
        join_cosine=0.53,
        duplicate_cosine=0.97,
        # Different people reach 0.498 (sisters; 0.412 else); halves of three fall to 0.586 (one in
        # a hundred below 0.698).
        same_cosine=0.60,
        propose_cosine=0.53,
        near_cosine=0.42,
    ),
}
"""By the value of `recogniser` in the table `embeddings`."""
