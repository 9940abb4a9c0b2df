"""``manage.py status [SUBMISSION]``: how far a submission is, or the newest ones."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from batching.management.commands._server import ServerCommand, in_words, is_good

NEWEST = 20


class Command(ServerCommand):
    """Tell how far submissions are."""

    help = "Tell how far a submission on a running server is; without one, list the newest."

    def add_arguments(self, parser: CommandParser) -> None:
        """Ask which."""
        super().add_arguments(parser)
        parser.add_argument("submission", nargs="?", help="its id (sub_…)")

    def act(self, options: dict[str, Any]) -> int:
        """Tell."""
        server = self.server(options)
        if options["submission"]:
            shown = server.submission(options["submission"])
            self.stdout.write(in_words(shown))
            return 0 if is_good(shown) else 1
        for row in server.submissions(NEWEST):
            self.stdout.write(
                f"{row['id']}  {row['created_at'][:19]}  {row['accepted']:,} accepted,"
                f" {row['duplicates']:,} known, {row['rejected']:,} refused"
            )
        return 0
