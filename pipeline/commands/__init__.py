"""The commands of `idcluster`, a file a group; `pipeline/cli.py` puts them together."""
