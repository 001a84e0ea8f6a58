"""A models directory that has the same file for every name: to set up stages on files made up by a
test.
"""

from stages.weights import WeightFiles


class OneFile(WeightFiles):
    """`path`: the file. What is registered about a name is what the code says."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def path(self, name: str) -> str:
        return self._path
