"""What can be told of a client's file without reading its requests."""

from __future__ import annotations

import pytest

from batching import clientfiles


@pytest.mark.parametrize(
    ("content", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)]
)
def test_lines_are_counted_across_pieces(settings, tmp_path, monkeypatch, content, lines):
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr(clientfiles, "PIECE_BYTES", 2)
    with clientfiles.incoming("k") as file:
        file.write(content)

    assert clientfiles.count_lines("k") == lines
    assert clientfiles.count_lines("gone") == 0
