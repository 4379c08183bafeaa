"""Hot words: phrases in tokens -> a bonus for every token that goes on with one of them.

A trie of the phrases with the failure links of Aho and Corasick 1975 (CACM 18(6)), as a scorer for shallow fusion
(Zhao et al. 2019, "Shallow-Fusion End-to-End Contextual Biasing", Interspeech): a partial match is worth one bonus a
token, which is taken back when the phrase breaks off. So at the end a transcript has gained the bonus for each of its
tokens that lies in a phrase said in full, once; where phrases overlap, the one that was complete first has the tokens,
and a longer one that begins with it may go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Tokens = tuple[int, ...]


@dataclass
class _Node:
    """What was said of a phrase so far."""

    depth: int
    complete: int  # tokens of the longest whole phrase that it begins with
    children: dict[int, int] = field(default_factory=dict)  # token -> node
    phrase: bool = False  # whether it is one
    fall: int = 0  # the node to go on from where no child fits: the longest end of what is not in a whole phrase


@dataclass(frozen=True)
class HotState:
    """Where in the trie each beam is."""

    nodes: Tensor  # (B, K)
    started: bool  # False before the first step, whose tokens only begin the sentence


class HotWordScorer:
    """Scores +1, 0 or what is taken back; the weight it gets in a search is the bonus for a token."""

    gain = 1.0

    def __init__(self, phrases: Sequence[Sequence[int]], vocabulary: int, batch: int, device: torch.device):
        """Phrases in token ids, the end of sentence not among them, for `batch` utterances."""
        self.batch = batch
        nodes = _trie(sorted({tuple(phrase) for phrase in phrases if len(phrase)}))
        root = torch.zeros(vocabulary, dtype=torch.float64)
        root_next = torch.zeros(vocabulary, dtype=torch.int64)
        for token, child in nodes[0].children.items():
            root[token], root_next[token] = 1.0, child
        lists = [_exceptions(number, nodes) for number in range(len(nodes))]
        most = max(len(list_) for _, list_ in lists)
        rows = [[(token, *to) for token, to in list_.items()] for _, list_ in lists]
        none = (vocabulary, 0.0, 0)  # a token beyond the last
        columns = ([[one[place] for one in (*row, *[none] * (most - len(row)))] for row in rows] for place in range(3))
        kinds = (torch.int64, torch.float64, torch.int64)
        self.root, self.root_next = root.to(device), root_next.to(device)  # (V,) scores and nodes from the root
        self.tokens, self.gains, self.nexts = (  # (nodes, most)
            torch.tensor(column, dtype=kind, device=device) for column, kind in zip(columns, kinds, strict=True)
        )
        self.falls = torch.tensor(
            [fall for fall, _ in lists], dtype=torch.float64, device=device
        )  # (nodes,) to the root, taken back

    def start(self) -> HotState:
        return HotState(torch.zeros(self.batch, 1, dtype=torch.int64, device=self.root.device), False)

    def step(self, tokens: Tensor, state: HotState) -> tuple[Tensor, HotState]:
        nodes = self._next(tokens, state.nodes) if state.started else state.nodes  # (B, K)
        scores = self.root + self.falls[nodes].unsqueeze(2)  # (B, K, V)
        scores = torch.nn.functional.pad(scores, (0, 1)).scatter(2, self.tokens[nodes], self.gains[nodes])[..., :-1]
        return scores, HotState(nodes, True)

    def select(self, state: HotState, utterances: Tensor, parents: Tensor) -> HotState:
        return replace(state, nodes=state.nodes[utterances.unsqueeze(1), parents])

    def _next(self, tokens: Tensor, nodes: Tensor) -> Tensor:
        hits = self.tokens[nodes] == tokens.unsqueeze(2)  # (B, K, most), at most one of them
        return torch.where(hits.any(2), (self.nexts[nodes] * hits).sum(2), self.root_next[tokens])


def _trie(phrases: Sequence[Tokens]) -> list[_Node]:
    """Nodes of a trie, the root first, with their falls."""
    nodes = [_Node(0, 0)]
    paths: dict[Tokens, int] = {(): 0}
    for phrase in phrases:
        for length in range(1, len(phrase) + 1):
            path = phrase[:length]
            if path not in paths:
                paths[path] = nodes[paths[path[:-1]]].children[path[-1]] = len(nodes)
                nodes.append(_Node(length, 0))
        nodes[paths[phrase]].phrase = True
    for path, number in sorted(paths.items(), key=lambda one: len(one[0])):
        node = nodes[number]
        if path:
            node.complete = node.depth if node.phrase else nodes[paths[path[:-1]]].complete
        ends = (path[first:] for first in range(max(1, node.complete), node.depth))
        node.fall = next((paths[end] for end in ends if end in paths), 0)
    return nodes


def _exceptions(number: int, nodes: list[_Node]) -> tuple[float, dict[int, tuple[float, int]]]:
    """What is taken back on the way from a node to the root, and the tokens that do not go that way: token -> score,
    next node."""
    found: dict[int, tuple[float, int]] = {}
    lost = 0.0
    while number:
        node = nodes[number]
        for token, child in node.children.items():
            found.setdefault(token, (1.0 + lost, child))
        lost += nodes[node.fall].depth - (node.depth - node.complete)
        number = node.fall
    return lost, found
