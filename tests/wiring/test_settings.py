"""What a wrong environment says, and what a right one becomes."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings


def test_tests_never_touch_the_data_folder_of_a_developer():
    assert "batcher-tests-" in str(settings.DATA_DIR)
    assert Path(settings.DATABASES["default"]["TEST"]["NAME"]).parent == settings.DATA_DIR or (
        "postgresql" in settings.DATABASES["default"]["ENGINE"]
    )
