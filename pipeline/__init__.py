"""The pipeline: DAG file, plan, execution on Ray, shards, erasure, report and command line. The
only package that knows Ray.
"""
