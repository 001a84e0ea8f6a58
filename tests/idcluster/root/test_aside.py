"""Files that a command writes for its user are whole under their name, or what was there stays."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from idcluster.catalogue.answers import FORMATS, write
from idcluster.root.aside import aside, write_text


def broken() -> pa.RecordBatchReader:
    """Rows that end in an error, as those of a query over a damaged file."""
    schema = pa.schema([("a", pa.int64())])

    def batches() -> object:
        yield pa.record_batch([pa.array(range(1000))], schema=schema)
        raise OSError("the disk is gone")

    return pa.RecordBatchReader.from_batches(schema, batches())


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "table"])
@pytest.mark.parametrize("before", [None, "an earlier answer"])
def test_an_answer_that_breaks_off_leaves_no_half_of_it(
    tmp_path: Path, format: str, before: str | None
) -> None:
    file = tmp_path / "answer"
    if before is not None:
        file.write_text(before)
    with pytest.raises(OSError, match="the disk is gone"):
        write(broken(), format, str(file))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["answer"])
    assert before is None or file.read_text() == before


def test_a_file_that_cannot_be_written_is_told_by_its_own_name(tmp_path: Path) -> None:
    place = tmp_path / "nowhere" / "a.csv"
    with pytest.raises(OSError) as caught:
        write_text(place, "text")
    assert caught.value.filename == str(place)


def test_links_rights_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_text(link, "new\r\n")
    assert (
        link.is_symlink()
        and real.read_bytes() == b"new\r\n"
        and real.stat().st_mode & 0o777 == 0o640
    )
    write_text(os.devnull, "nothing")
    assert not Path(os.devnull).is_file()
    with aside(tmp_path / "plot.png") as place:
        assert place.suffix == ".png"
        place.write_bytes(b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "plot.png", "real.csv"]
