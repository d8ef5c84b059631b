"""Level process: nothing but what every command gets anyway."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from goalrun.adapters.deps import editable, path_inside
from goalrun.adapters.sandbox.place import Place, Surroundings, Wrapped
from goalrun.errors import EnvironmentFailure


class ProcessSandbox:
    """No kernel isolation: own session, environment and folders, nothing left alive afterwards.

    Dependencies are links to what is frozen of them.
    """

    level = "process"

    def __init__(self, around: Surroundings) -> None:
        self._workspace = around.workspace
        self._frozen = around.frozen
        self.path = path_inside(around.path, around.frozen)

    def furnish(self, place: Place) -> None:
        """Links to the frozen dependencies, where the snapshot has nothing."""
        if place.top == self._workspace:
            return
        if escape := editable(self._frozen, self._workspace):
            raise EnvironmentFailure(
                f"an editable install ({escape}) makes checks import the live workspace, not the snapshot",
                hint="install bubblewrap, or install the project without -e, or keep its environment elsewhere",
            )
        for each in self._frozen:
            link = place.top / each.path.relative_to(self._workspace)
            if not os.path.lexists(link) and link.parent.is_dir():
                link.symlink_to(each.stand_in)

    def seen(self, place: Place) -> Place:
        """What the machine sees."""
        return place

    def wrap(self, argv: Sequence[str], place: Place, cwd: Path, env: Mapping[str, str]) -> Wrapped:
        """The command itself."""
        del place
        return Wrapped(tuple(argv), cwd, env)
