"""From a text to the numbers that CLIP's text tower reads, by OpenAI's rules.

Byte pairs as transformers' CLIPTokenizer makes them, from vocab.json and merges.txt or from the one
file that OpenAI has instead. What OpenAI does to a text before is done here, for every source
alike: entities of HTML are resolved (twice), white space becomes single spaces, letters small. Of
its repairs of Unicode (by ftfy) those are here that sound texts need too: quotes straight,
ligatures and wide letters taken apart, control characters out. Text that was decoded wrongly is
left as it is.
"""

import gzip
import html
import json
import re
import unicodedata
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from stages.torch_session import BadCheckpoint

FIRST, LAST = "<|startoftext|>", "<|endoftext|>"
OPENAI_FILE = "bpe_simple_vocab_16e6.txt.gz"
_OPENAI_MERGES = 49_152 - 256 - 2
"""How many of OpenAI's merges count: the file has more than went into the vocabulary."""


def _plain_letters() -> dict[int, str]:
    digraphs = (
        0x132,
        0x133,
        0x149,
        *range(0x1C4, 0x1CD),
        *range(0x1F1, 0x1F4),
        *range(0xFB00, 0xFB07),
    )
    wide = (0x3000, *range(0xFF01, 0xFFF0))
    quotes = dict.fromkeys((0x2BC, *range(0x2018, 0x201C)), "'") | dict.fromkeys(
        range(0x201C, 0x2020), '"'
    )
    controls = dict.fromkeys(
        (
            *range(9),
            11,
            *range(14, 32),
            127,
            *range(0x206A, 0x2070),
            0xFEFF,
            *range(0xFFF9, 0xFFFD),
        ),
        "",
    )
    letters = {
        code: unicodedata.normalize("NFKC", chr(code)).translate(quotes)
        for code in (*digraphs, *wide)
    }
    return letters | quotes | controls


_PLAIN = _plain_letters()


class ClipTokeniser:
    """Texts to rows of token numbers.

    `vocabulary`: token to number; `merges`: pairs of tokens, first merged first; `context`: tokens
    of a row; `place`: where they come from, for messages. Raises BadCheckpoint where they do not
    fit each other.
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        merges: Sequence[tuple[str, str]],
        context: int,
        place: str,
    ) -> None:
        from transformers import CLIPTokenizer

        lacking = [token for token in (FIRST, LAST) if token not in vocabulary]
        if lacking:
            raise BadCheckpoint(
                f"{place}: not the vocabulary of a CLIP: it lacks {' and '.join(lacking)}"
            )
        # The text tower takes the vector at the highest number of a row for that of the text.
        if vocabulary[LAST] != max(vocabulary.values()):
            raise BadCheckpoint(
                f"{place}: not the vocabulary of a CLIP: {LAST} is not the last token"
            )
        self.context = context
        self.size = len(vocabulary)
        self._first, self._last = vocabulary[FIRST], vocabulary[LAST]
        try:
            pairs: Any = list(merges)  # its annotation leaves out that pairs are taken too
            self._tokens: Any = CLIPTokenizer(vocab=vocabulary, merges=pairs)
        except Exception as error:  # the library in Rust raises nothing narrower
            raise BadCheckpoint(
                f"{place}: vocabulary and merges do not fit each other: {error}"
            ) from error

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(n, context) int64: first token, text, last token, zeros. What is too long is cut so that
        the last token stays last.
        """
        rows = np.zeros((len(texts), self.context), dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            inside = self._tokens(cleaned(text), add_special_tokens=False)["input_ids"][
                : self.context - 2
            ]
            row[: len(inside) + 2] = [self._first, *inside, self._last]
        return rows


def cleaned(text: str) -> str:
    """The text as its tokens are made from it; see above."""
    # Half a surrogate pair is no text, and cannot be encoded; halves that belong together are put
    # together.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = unicodedata.normalize("NFC", text.translate(_PLAIN))
    text = html.unescape(html.unescape(text))
    return re.sub(r"\s+", " ", text).strip().lower()


def from_folder(folder: str, context: int) -> ClipTokeniser:
    """From vocab.json and merges.txt. Raises BadCheckpoint, FileNotFoundError."""
    path = Path(folder) / "vocab.json"
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(number, int) for number in vocabulary.values()):
            raise ValueError("a token has no number")
    except (ValueError, AttributeError) as error:
        raise BadCheckpoint(f"{path}: not a vocabulary: {error}") from error
    lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").split("\n")
    return ClipTokeniser(
        vocabulary,
        _pairs(line for line in lines if not line.startswith("#version")),
        context,
        str(path),
    )


def from_openai(path: str, context: int) -> ClipTokeniser:
    """From OpenAI's `bpe_simple_vocab_16e6.txt.gz`: merges, from which the vocabulary follows.
    Raises BadCheckpoint.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadCheckpoint(f"{path}: not OpenAI's file of byte pairs: {error}") from error
    merges = _pairs(lines[1 : _OPENAI_MERGES + 1])
    letters = _byte_letters()
    tokens = chain(
        letters,
        (f"{letter}</w>" for letter in letters),
        (first + second for first, second in merges),
        (FIRST, LAST),
    )
    return ClipTokeniser(
        {token: number for number, token in enumerate(tokens)}, merges, context, path
    )


def _pairs(lines: Any) -> list[tuple[str, str]]:
    split = (line.split() for line in lines)
    return [(parts[0], parts[1]) for parts in split if len(parts) == 2]


def _byte_letters() -> list[str]:
    """A visible letter for every byte, in the order of the vocabulary: bytes that are visible in
    Latin-1 first, as themselves.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(code) for code in (*visible, *range(0x100, 0x100 + 256 - len(visible)))]
