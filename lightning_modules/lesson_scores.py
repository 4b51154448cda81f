"""How well questions with known answers are answered, read teacher-forced: no answer is sampled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torchmetrics.functional.classification import binary_auroc

from models.reasoner import Reasoner
from models.rows import TurnLogits


class LessonScores:
    """Exact answers and yes/no log-odds of a pass over lessons, by the kind of evidence."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._exact: dict[str, list[bool]] = defaultdict(list)
        self._odds: dict[str, list[tuple[float, bool]]] = defaultdict(list)

    def __len__(self) -> int:
        """Answers so far."""
        return sum(map(len, self._exact.values()))

    def add(self, reasoner: Reasoner, answers: Sequence[TurnLogits], evidence: Sequence[Sequence[str]]) -> None:
        """Score the answers of some clips.

        Args:
            reasoner: For its words.
            answers: What was predicted.
            evidence: Per clip, what every turn takes to answer.
        """
        yes, no = (reasoner.builder.answer_ids(word)[0] for word in ("yes", "no"))
        for part in answers:
            logits_of, labels_of = (torch.split(values, part.lengths) for values in (part.logits, part.labels))
            for (clip, number), logits, labels in zip(part.turns, logits_of, labels_of, strict=True):
                name = evidence[clip][number]
                self._exact[name].append(bool((logits.argmax(-1) == labels).all()))
                first = int(labels[0])
                if first in (yes, no):
                    odds = float(logits[0, yes] - logits[0, no])
                    self._odds[name.replace("null ", "")].append((odds, first == yes))

    def take(self, *, prefix: str) -> dict[str, float]:
        """The scores by log key, and start again.

        Args:
            prefix: What every key begins with, such as "val/".

        Returns:
            "exact/<evidence>", the share of answers that are right word for word, and "auc/<evidence>" of the yes/no
            log-odds: 0.5 is blind guessing whatever the share of right answers; kinds with one label only have none.
        """
        metrics = {f"{prefix}exact/{name}": sum(found) / len(found) for name, found in sorted(self._exact.items())}
        for name, pairs in sorted(self._odds.items()):
            odds, labels = torch.tensor([pair[0] for pair in pairs]), torch.tensor([pair[1] for pair in pairs])
            if labels.any() and not labels.all():
                metrics[f"{prefix}auc/{name}"] = float(binary_auroc(odds.sigmoid(), labels.long()))
        self._exact.clear()
        self._odds.clear()
        return metrics
