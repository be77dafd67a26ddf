"""Which signatures were used, for as long as they could be used again."""

from collections import Counter


class SeenSignatures:
    """Of each key, bounded over all of them. What is forgotten early can not be used again either: from then on the
    key's requests of that second and before are too old. The key that has used most forgets first, so that one caller
    takes nothing from the others.

    A signature counts for the second of its caller's clock. One thread."""

    def __init__(self, capacity: int) -> None:
        """At most `capacity` signatures are remembered, at about 80 bytes each."""
        self._capacity = capacity
        self._by_second: dict[int, dict[str, set[int]]] = {}
        self._counts: Counter[str] = Counter()
        self._total = 0
        self._forgotten: dict[str, int] = {}
        """By key: the latest second of which something was forgotten early."""
        self._oldest = 0

    def __len__(self) -> int:
        return self._total

    def forget_before(self, second: int) -> None:
        """Nobody asks for signatures of an earlier second any more."""
        if second == self._oldest:
            return
        self._oldest = second
        for past in [past for past in self._by_second if past < second]:
            for key_id, seen in self._by_second.pop(past).items():
                self._count(key_id, -len(seen))
        for key_id in [key_id for key_id, past in self._forgotten.items() if past < second]:
            del self._forgotten[key_id]

    def is_too_old(self, key_id: str, second: int) -> bool:
        """Whether a signature of that second might have been used and forgotten."""
        return second <= self._forgotten.get(key_id, -1)

    def use(self, key_id: str, second: int, signature: str) -> bool:
        """False where it was used before; `is_too_old` comes first. Of the signature's 64 hexadecimal digits the first
        16 are remembered: that two of a key's in one second are alike by chance does not happen."""
        seen = self._by_second.setdefault(second, {}).setdefault(key_id, set())
        number = int(signature[:16], 16)
        if number in seen:
            return False
        seen.add(number)
        self._count(key_id, 1)
        if self._total > self._capacity:
            self._forget_early()
        return True

    def _forget_early(self) -> None:
        ((key_id, _),) = self._counts.most_common(1)
        second = min(second for second, by_key in self._by_second.items() if key_id in by_key)
        self._count(key_id, -len(self._by_second[second].pop(key_id)))
        self._forgotten[key_id] = max(second, self._forgotten.get(key_id, -1))

    def _count(self, key_id: str, change: int) -> None:
        self._total += change
        self._counts[key_id] += change
        if not self._counts[key_id]:
            del self._counts[key_id]
