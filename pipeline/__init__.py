"""The pipeline: dataset root, plan, execution on Ray, catalogue and command line. The only package
that knows Ray.
"""
