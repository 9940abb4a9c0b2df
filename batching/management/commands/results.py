"""``manage.py results SUBMISSION``: what results there are, as JSON lines."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from batching.management.commands._server import ServerCommand, is_good


class Command(ServerCommand):
    """Print or write the results of a submission."""

    help = "Print the results of a submission on a running server, in the order of its lines."

    def add_arguments(self, parser: CommandParser) -> None:
        """Ask of which, and where to."""
        super().add_arguments(parser)
        parser.add_argument("submission", help="its id (sub_…)")
        parser.add_argument("--out", type=Path, help="write here instead of to standard output")

    def act(self, options: dict[str, Any]) -> int:
        """Write all that is whole, and say on standard error when more is to come."""
        server, key, out = self.server(options), options["submission"], options["out"]
        with server.results(key, "") as results:
            if out is None:
                decoder = codecs.getincrementaldecoder("utf-8")()
                for piece in results.pieces():
                    self.stdout.write(decoder.decode(piece), ending="")
            else:
                with out.open("wb") as file:
                    file.writelines(results.pieces())
            is_complete = results.is_complete
        if not is_complete:
            self.stderr.write("More is to come: some requests before the last have no end yet.")
        return 0 if is_good(server.submission(key)) else 1
