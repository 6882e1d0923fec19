"""Where the checkpoints of a series on the Hub lie: branches and tags, folders of one revision, commits, repositories.

Each way gives the same: an address a checkpoint, by its name. What is done with them is the same from there on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from pythiageo.errors import UserError
from pythiageo.interrupts import map_in_threads
from pythiageo.series.files.weight_files import WeightFile, index_format, is_weight_file
from pythiageo.series.hub.address import Address, is_pattern, main_of, shorten_target, split_names
from pythiageo.series.hub.cached import is_offline, kept_folders, kept_repositories, kept_revisions
from pythiageo.series.hub.client import Folders, Listing, find_main, list_commits, list_repositories
from pythiageo.series.kinds import describe_layout
from pythiageo.series.layout import MAIN, Layout, Naming
from pythiageo.series.names import parse_step
from pythiageo.series.registry import BRANCHES, COMMITS, FOLDERS, REPOSITORIES, Entry
from pythiageo.series.steps import left_out, parse_grid

_LISTERS = 8
"""Repositories asked for at the same time."""
_SEVERAL = 2
"""Folders named by step that make a series where nobody says that they do."""


@dataclass(frozen=True)
class Found:
    """The addresses of a series' checkpoints by name, with that of ``main`` where there is one, and their layout.

    ``kind``: what they are, in a word. ``files``: of those that were listed on the way.
    """

    addresses: Mapping[str, Address]
    layout: Layout
    kind: str
    files: Mapping[str, Sequence[WeightFile]]


def is_of_several(target: str, entry: Entry | None) -> bool:
    """Return whether a target stands for several repositories: a list, a pattern, or a series that is known so."""
    known = entry is not None and entry.layout == REPOSITORIES
    return known or is_pattern(target) or split_names(target) is not None


def find_in_repository(
    repo: str, commits: Mapping[str, str | None], naming: Naming, entry: Entry | None, listing: Listing
) -> Found:
    """Find the checkpoints of one repository with these branches and tags.

    Where nothing is known of it, branches and tags named by step come first, then several folders of ``main`` that are
    named so and hold files of a model, then the commits of ``main``.

    Raises:
        UserError: as ``arrange``; its models are of a kind that is not measured.
        MachineError: the Hub cannot be reached.
    """
    kind = entry.layout if entry else BRANCHES
    named = {name: Address(repo, name, commit) for name, commit in commits.items()}
    found = Found(named, _arrange_branches(repo, commits, naming, entry), "revisions", {})
    if (kind == BRANCHES and found.layout.places) or (kind == COMMITS and is_offline()):
        return found
    if kind in (BRANCHES, FOLDERS):
        branch = entry.revision if entry else MAIN
        folders = _find_folders(main_of(repo, commits.get(branch)), branch, naming, entry, listing)
        enough = 1 if kind == FOLDERS or naming.pattern else _SEVERAL
        if len(folders.layout.places) >= enough or kind == FOLDERS:
            return _with_unread(folders, [name for name in commits if name not in (MAIN, branch)], len(commits))
    if is_offline():
        return found
    titles = {title: Address(repo, title, commit) for title, commit in list_commits(repo).items()}
    of_commits = Found({**named, **titles}, naming.arrange(titles, repo, entry), "commits", {})
    return _with_unread(of_commits, [name for name in commits if name != MAIN], len(commits))


def find_repositories(target: str, naming: Naming, entry: Entry | None) -> Found:
    """Find the checkpoints of a series that has a repository for each: the ``main`` of each that a target stands for.

    Raises:
        UserError: there is none such; as ``arrange``.
        MachineError: the Hub cannot be reached.
    """
    listed = split_names(target)
    owner, _, rest = target.partition("/")
    if listed is not None:
        mains = dict(map_in_threads(_find_main, listed, _LISTERS))
    else:
        search = re.split(r"[*?]", rest)[0] if is_pattern(target) else ""
        there = kept_repositories(owner) if is_offline() else list_repositories(owner, search)
        mains = {repo: commit for repo, commit in there.items() if _is_meant(repo, target, entry)}
        if not mains:
            if is_offline():
                raise UserError(f"{target}: the Hub client is offline, and its cache has no repository of such a name")
            raise UserError(
                f"{target}: {owner} has no repository of such a name on the Hub, or private ones: then set HF_TOKEN to "
                f"a read token of someone who may see them"
            )
    alone = len({repo.partition("/")[0] for repo in mains}) == 1
    addresses = {
        name: Address(repo, name, commit, branch=MAIN)
        for repo, commit in mains.items()
        for name in [repo.partition("/")[2] if alone else repo]
    }
    whole = next((name for name, one in addresses.items() if one.repo.lower() == target.lower()), None)
    found = naming.arrange(addresses, shorten_target(target), entry)
    if whole in found.unread:  # the series' own name: what came of it in the end
        addresses[MAIN] = replace(addresses[whole], name=MAIN)
        found = replace(found, unread=tuple(name for name in found.unread if name != whole))
    said = "each checkpoint is the main of a repository of its own: other revisions of these are not read"
    return Found(addresses, replace(found, remarks=(*found.remarks, said)), REPOSITORIES, {})


def _find_main(repo: str) -> tuple[str, str | None]:
    if not is_offline():
        return find_main(repo)
    name, commits = kept_revisions(repo)
    return name, commits.get(MAIN)


def _is_meant(repo: str, target: str, entry: Entry | None) -> bool:
    if is_pattern(target):
        return fnmatchcase(repo.lower(), target.lower())
    return entry is not None and entry.is_of(repo)


def _arrange_branches(repo: str, names: Mapping[str, str | None], naming: Naming, entry: Entry | None) -> Layout:
    found = naming.arrange(names, repo, entry)
    grid = parse_grid(entry.expected) if entry and entry.expected else ()
    if grid and not set(found.places) <= set(grid):  # another series of that name
        return naming.arrange(names, repo)
    return found


def _find_folders(top: Address, branch: str, naming: Naming, entry: Entry | None, listing: Listing) -> Found:
    """Find the checkpoints among the folders of a revision."""
    at = replace(top, branch=branch)
    folders = kept_folders(at) if is_offline() else listing.folders(at)
    paths = [path for path in _list_checkpoints(folders) if path != MAIN]
    addresses = {path: Address(at.repo, path, at.commit, path, branch) for path in paths}
    files = {path: folders[path] for path in paths}
    for path in (MAIN, ""):
        if _hold_weights(folders.get(path, ())):
            addresses[MAIN], files[MAIN] = replace(at, folder=path), folders[path]
            break
    return Found(addresses, naming.arrange(paths, f"{at.repo}, folders of {branch}", entry), "folders", files)


def _list_checkpoints(folders: Folders) -> list[str]:
    """Return the folders that hold files of a model, and those beside them that are named by step all the same."""
    holding = {path for path, files in folders.items() if path and _is_of_model([file.name for file in files])}
    beside = {path.rpartition("/")[0] for path in holding}
    named = {
        path
        for path, (above, _, name) in ((path, path.rpartition("/")) for path in folders if path)
        if above in beside and parse_step(name) is not None
    }
    return sorted(holding | named)


def _is_of_model(names: Sequence[str]) -> bool:
    known = any(name == "config.json" or is_weight_file(name, {}) or index_format(name) for name in names)
    return known or describe_layout(names) is not None


def _hold_weights(files: Sequence[WeightFile]) -> bool:
    return any(is_weight_file(file.name, {}) for file in files)


def _with_unread(found: Found, others: Sequence[str], of: int) -> Found:
    """Return the same, with what it says of branches and tags that are not read."""
    said = tuple(f"of its revisions, {one}" for one in left_out(sorted(others), of, "revisions"))
    return replace(found, layout=replace(found.layout, remarks=(*found.layout.remarks, *said)))
