"""Stage 1: a declared taxonomy, from a file of paths or of parents and children; what cannot be a ladder is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.config_catalog import CatalogSettings
from pipeline.errors import CatalogError
from pipeline.readers import LINE, Wanted, read, read_columns
from pipeline.taxonomy import Taxonomy

TREE = ("parent", "child")
MAX_NAMED = 5  # of what is wrong
Children = Mapping[str, Sequence[str]]


def read_declared(file: str, catalog: CatalogSettings, *, stop_label: str, expected: str | None = None) -> Taxonomy:
    """Return the taxonomy that a file declares: by paths, or by rows of the columns parent and child.

    Raises CatalogError that names file and line, the orphan, the cycle or the path that is too long.
    """
    columns = catalog.label_columns
    found: set[str] = set()
    for rows in read(file, Wanted((*columns, *TREE)), expected=expected):
        found |= set(rows.known)
    if set(TREE) <= found and not found & set(columns):
        table = read_columns(file, columns=TREE, expected=expected)
        rows_of = zip(*(table[name].to_pylist() for name in (LINE, *TREE)), strict=True)
        return Taxonomy.of(catalog.levels, _paths_of_tree(file, rows_of, len(catalog.levels)), stop_label=stop_label)
    return Taxonomy.read(file, levels=catalog.levels, columns=columns, stop_label=stop_label, expected=expected)


def _paths_of_tree(file: str, rows: Iterator[tuple[int, str | None, str | None]], n_levels: int) -> list[list[str]]:
    """Return the paths from the tops down to the leaves.

    A top has an empty parent; where no row has one, whatever is nobody's child is a top.
    """
    children: dict[str, dict[str, int]] = {}
    tops: dict[str, int] = {}
    for line, parent, child in rows:
        parent, child = (parent or "").strip(), (child or "").strip()
        if not child:
            raise CatalogError(f"{file} line {line}: column 'child' is empty; a row names a label and what it is below")
        (children.setdefault(parent, {}) if parent else tops).setdefault(child, line)
    below = {child for found in children.values() for child in found}
    _refuse_cycles(file, {parent: list(found) for parent, found in children.items()})
    orphans = [parent for parent in children if parent not in below and parent not in tops]
    if tops and orphans:
        named = "; ".join(
            f"'{next(iter(children[parent]))}' (line {next(iter(children[parent].values()))}) below '{parent}'"
            for parent in orphans[:MAX_NAMED]
        )
        raise CatalogError(
            f"{file}: {len(orphans)} parents are declared nowhere: {named}; give each a row of its own, with an empty "
            "parent where it is a top label"
        )
    paths = [[top] for top in tops or orphans]
    if not paths:
        raise CatalogError(f"{file}: declares no path; give a row a parent and a child")
    return list(_descend(file, paths, {parent: list(found) for parent, found in children.items()}, n_levels))


def _descend(file: str, waiting: list[list[str]], children: Children, n_levels: int) -> Iterator[list[str]]:
    while waiting:
        path = waiting.pop()
        if len(path) > n_levels:
            raise CatalogError(f"{file}: {' > '.join(path)} is deeper than the {n_levels} levels of [catalog] levels")
        below = children.get(path[-1], ())
        if not below:
            yield path
        waiting += [[*path, child] for child in below]


def _refuse_cycles(file: str, children: Children) -> None:
    """Raise CatalogError that names a cycle, if there is one; in steps, as a chain may be long."""
    done: set[str] = set()
    for start in children:
        path, on_path, waiting = [start], {start: 0}, [iter(children[start])]
        while waiting and start not in done:
            child = next(waiting[-1], None)
            if child is None:
                waiting.pop()
                done.add(path[-1])
                del on_path[path.pop()]
            elif child in on_path:
                circle = " > ".join([*path[on_path[child] :], child])
                raise CatalogError(f"{file}: the declared taxonomy goes in a circle: {circle}; take one row out")
            elif child not in done:
                on_path[child] = len(path)
                path.append(child)
                waiting.append(iter(children.get(child, ())))
