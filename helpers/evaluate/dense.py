"""Passages ranked by meaning, and two rankings made one. What turns texts into vectors is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from helpers.evaluate.intervals import Interval, bootstrap
from helpers.evaluate.retrieval import Retriever
from helpers.machine.language import listed, tr

if TYPE_CHECKING:
    import torch

RETRIEVERS = ("bm25", "dense", "both", "known questions")
RANK_OFFSET = 60  # of the paper; a first place then counts little more than a second


class Ranker(Protocol):
    """What finds passages: `texts` are all it knows, `top` gives the k best, best first."""

    texts: list[str]

    def top(self, question: str, k: int = 3) -> list[str]:
        """The k best passages, best first."""
        ...


class DenseRetriever:
    """Ranks passages by the cosine between their sentence embeddings and the question's (Reimers and Gurevych 2019).

    encode: texts -> (texts, dimensions), each row of length 1, so that the inner product is the cosine.
    """

    def __init__(self, texts: Sequence[str], encode: Callable[[Sequence[str]], torch.Tensor]):
        self.texts, self.encode = list(texts), encode
        self.vectors = encode(self.texts)

    def top(self, question: str, k: int = 3) -> list[str]:
        """The k best passages, best first."""
        scores = self.vectors @ self.encode([question])[0]
        return [self.texts[index] for index in scores.topk(min(k, len(self.texts))).indices.tolist()]


class KnownQuestions:
    """Ranks passages by meaning, each by the nearest of its own text and of questions that it answered before.

    asked: pairs of a question and the passage that answers it, as a desk's log has them; those whose passage is not in
    the sheet are left out. A question is nearer to another question than to its answer.
    least: the cosine below which a passage is no answer, so that `top` may give none; `least_score` chooses it.
    """

    def __init__(
        self,
        texts: Sequence[str],
        asked: Iterable[tuple[str, str]],
        encode: Callable[[Sequence[str]], torch.Tensor],
        least: float = -1.0,
    ):
        self.texts, self.encode, self.least = list(texts), encode, least
        index_of = {text: index for index, text in enumerate(self.texts)}
        self.asked = [(question, index_of[passage]) for question, passage in asked if passage in index_of]
        self.owners = [*range(len(self.texts)), *(owner for _, owner in self.asked)]
        self.vectors = encode([*self.texts, *(question for question, _ in self.asked)])

    def top(self, question: str, k: int = 3) -> list[str]:
        """The k best passages, best first; fewer, or none, where the cosine is below `least`."""
        best = [-1.0] * len(self.texts)
        for owner, score in zip(self.owners, (self.vectors @ self.encode([question])[0]).tolist(), strict=True):
            best[owner] = max(best[owner], score)
        ranked = sorted(range(len(best)), key=lambda index: -best[index])[:k]
        return [self.texts[index] for index in ranked if best[index] >= self.least]

    def least_score(self, foreign: Sequence[str]) -> float:
        """The cosine that parts the known questions best from foreign ones, which no passage answers.

        Best is the highest mean of two shares: known questions at or above it, each compared with all but itself, and
        foreign ones below it. Raises ValueError without any of both.
        """
        if not self.asked or not foreign:
            raise ValueError(tr("a line between known and foreign questions needs some of both"))
        first = len(self.texts)
        cosines = self.vectors[first:] @ self.vectors.T
        cosines[range(len(self.asked)), range(first, first + len(self.asked))] = -1.0  # itself
        own = cosines.max(dim=1).values.tolist()
        others = (self.encode(list(foreign)) @ self.vectors.T).max(dim=1).values.tolist()
        kept = lambda line: sum(score >= line for score in own) / len(own)
        return max(sorted({*own, *others}), key=lambda line: kept(line) + sum(s < line for s in others) / len(others))


class CombinedRetriever:
    """Adds up 1 / (60 + rank) over several rankings: reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)."""

    def __init__(self, rankers: Sequence[Ranker]):
        self.rankers, self.texts = list(rankers), rankers[0].texts

    def top(self, question: str, k: int = 3) -> list[str]:
        """The k best passages, best first; of equal ones, the one that stands first in the sheet."""
        points = dict.fromkeys(self.texts, 0.0)
        for ranker in self.rankers:
            for rank, text in enumerate(ranker.top(question, len(self.texts)), 1):
                points[text] += 1 / (RANK_OFFSET + rank)
        return sorted(points, key=lambda text: -points[text])[:k]


class GivenRetriever:
    """Brings the right passage for each question it was told of, as a perfect search would: to measure the reading."""

    def __init__(self, right: dict[str, str]):
        self.right, self.texts = right, list(dict.fromkeys(right.values()))

    def top(self, question: str, k: int = 3) -> list[str]:
        """The right passage alone, whatever k is; none where it is "". Raises KeyError for another question."""
        return [self.right[question]] if self.right[question] else []


def make_retriever(
    kind: str,
    texts: Sequence[str],
    encoder: Callable[[], Callable[[Sequence[str]], torch.Tensor]],
    asked: Iterable[tuple[str, str]] = (),
    foreign: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> Ranker:
    """A retriever by name, one of RETRIEVERS; BM25 and a sentence where the encoder cannot be had.

    encoder: loads it; called only when it is needed. asked, foreign: for "known questions", the pairs, and questions
    that no passage answers, by which `least` is chosen. Raises ValueError for another name.
    """
    if kind not in RETRIEVERS:
        raise ValueError(tr("RETRIEVER={kind!r}: there are {names}", kind=kind, names=listed(RETRIEVERS)))
    by_words = Retriever(texts)
    if kind == "bm25":
        return by_words
    try:
        encode = encoder()
    except (OSError, RuntimeError) as error:
        report(tr("searching with BM25 instead of {kind}: {error}", kind=kind, error=error))
        return by_words
    if kind == "known questions":
        known = KnownQuestions(texts, asked, encode)
        known.least = known.least_score(foreign) if foreign else known.least
        return known
    by_meaning = DenseRetriever(texts, encode)
    return by_meaning if kind == "dense" else CombinedRetriever([by_words, by_meaning])


def recall(ranker: Ranker, asked: Iterable[tuple[str, str]], ks: Sequence[int] = (1, 3, 5)) -> dict[int, Interval]:
    """For each k, the share of questions whose right passage is among the first k, with its interval.

    asked: pairs of a question and its right passage. Raises ValueError without any.
    """
    ranked = [(right, ranker.top(question, max(ks))) for question, right in asked]
    return {k: bootstrap([float(right in passages[:k]) for right, passages in ranked]) for k in ks}
