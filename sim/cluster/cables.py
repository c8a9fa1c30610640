"""Cables: what a fabric joins and with what, collected before anyone asks for a graph.

Why not a graph at once: networkx takes longer to import than a small run, and a run reads each cable once. `graph` makes it
for those who plot it or ask for paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import networkx as nx


class Cables:
    """Nodes and directed edges with their attributes, in the order in which networkx has them.

    Parameters
    ----------
    title : str
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.nodes: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, dict[str, dict[str, Any]]] = {}
        """Node -> node that a cable leads to -> attributes of the cable."""

    def __contains__(self, name: str) -> bool:
        return name in self.nodes

    def add_node(self, name: str, **data: Any) -> None:
        """Add a node, or attributes of one."""
        if name in self.nodes:
            self.nodes[name].update(data)
        else:
            self.nodes[name], self.ends[name] = data, {}

    def add_nodes(self, names: Iterable[str], **data: Any) -> None:
        """Add several nodes with the same attributes."""
        for name in names:
            self.add_node(name, **data)

    def add_edge(self, tail: str, head: str, **data: Any) -> None:
        """Add a cable between two nodes, or attributes of one."""
        heads = self.ends[tail]
        heads[head] = {**heads[head], **data} if head in heads else data

    def edges(self) -> Iterator[dict[str, Any]]:
        """Attributes of all cables, node by node."""
        for heads in self.ends.values():
            yield from heads.values()

    def graph(self) -> nx.DiGraph[str]:
        """The graph of all cables."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph(title=self.title)
        graph.add_nodes_from(self.nodes.items())
        graph.add_edges_from(
            (tail, head, data) for tail, heads in self.ends.items() for head, data in heads.items()
        )
        return graph
