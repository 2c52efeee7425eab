"""One measured figure beside the alternative it is compared with."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """A row of bench/out/results.json; `ratio` is value / baseline, None where nothing is compared."""

    name: str
    value: float
    unit: str
    n: int
    baseline_name: str | None = None
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if not self.baseline else self.value / self.baseline
