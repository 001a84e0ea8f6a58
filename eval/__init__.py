"""Measuring models and images. `labels` reads what somebody said of photographs; `recognition` and
`cleaning` hold results against it; `metrics` are pure functions. Only the command line imports it.
"""
