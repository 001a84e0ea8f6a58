"""idcluster: from a list of people to a clean, captioned, measured and sharded face dataset.
`python -m idcluster` is the command line.
"""
