"""Measuring models and images: extractors, metrics and benchmarks. Imports stages and schemas; only
the command line imports it.
"""
