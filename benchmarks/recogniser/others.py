"""What fills gaps and is not to be found: dates, numbers, codes, jobs, things."""

import random

from benchmarks.recogniser.words import BRANDS, DAYS, MONTHS, NOUNS, jobs, vocabulary


def _ordinal(day: int) -> str:
    last = day if 11 <= day <= 13 else day % 10
    return f"{day}{('th', 'st', 'nd', 'rd')[last if last < 4 else 0]}"


class Others:
    """Draws from `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._words = vocabulary()

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def digits(self, low: int, high: int) -> str:
        count = self.rng.randint(low, high)
        return "".join(self.rng.choices("0123456789", k=count))

    def date(self) -> str:
        rng = self.rng
        d, m, y = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1940, 2030)
        month = rng.choice(MONTHS)
        return rng.choice(
            (
                f"{y}-{m:02}-{d:02}",
                f"{d}.{m}.{y}",
                f"{m}/{d}/{y}",
                f"{month} {d}, {y}",
                f"{d} {month} {y}",
                f"{rng.choice(DAYS)}, {month} {d}",
                str(y),
                rng.choice(DAYS),
                month,
                f"{d:02}:{m:02}",
                f"{d:02}:{m:02}:31",
                f"{month[:3]} {d}",
                f"the {_ordinal(d)}",
                f"{month} {_ordinal(d)}",
                f"{_ordinal(d)} of {month}",
                f"{m}{rng.choice(('am', 'pm', ' am', ' pm', ' PM', ' o clock', ':30 pm'))}",
            )
        )

    def phone(self) -> str:
        d = self.digits
        return self.rng.choice(
            (
                f"+{d(1, 2)} {d(3, 3)} {d(3, 3)} {d(4, 4)}",
                f"({d(3, 3)}) {d(3, 3)}-{d(4, 4)}",
                d(8, 11),
                f"{d(3, 3)}-{d(3, 3)}-{d(4, 4)}",
                f"{d(2, 2)} {d(2, 2)} {d(2, 2)} {d(2, 2)}",
                f"0{d(3, 3)}/{d(5, 7)}",
                f"{d(3, 3)}.{d(3, 3)}.{d(4, 4)}x{d(3, 4)}",
                f"{d(3, 3)} {d(3, 3)} {d(4, 4)}",
            )
        )

    def url(self) -> str:
        w = self.rng.choices(self._words, k=2)
        return self.rng.choice(
            (
                f"https://www.{w[0].title()}{w[1].title()}.com/",
                f"http://{w[0]}.org/{w[1]}",
                f"www.{w[0]}{w[1]}.net",
                f"https://{w[0]}.io/{w[1]}?id={self.digits(2, 5)}",
                f"{w[0]}.{w[1]}.example",
            )
        )

    def code(self) -> str:
        if self.chance(0.15):
            return self.measure()
        r = self.rng
        return r.choice(
            (
                self.digits(12, 19),
                f"{self.digits(4, 4)} {self.digits(4, 4)} {self.digits(4, 4)} {self.digits(4, 4)}",
                f"{r.choice('ABCDEF')}{r.choice('XYZ')}-{self.digits(3, 8)}",
                f"DE{self.digits(20, 20)}",
                self.digits(1, 6),
                f"{r.randrange(2**48):012x}",
                f"{self.digits(3, 3)}-{self.digits(2, 2)}-{self.digits(4, 4)}",
                f"#{self.digits(2, 6)}",
                f"10.{r.randint(0, 255)}.{r.randint(0, 255)}.{r.randint(1, 254)}",
                f"{r.choice('$€£')}{self.digits(1, 4)}.{self.digits(2, 2)}",
                f"{self.digits(1, 4)} {r.choice(('USD', 'EUR', 'kg', 'km', 'GB', 'ms', '%', 'hours', 'items', 'boxes', 'rows'))}",
            )
        )

    def measure(self) -> str:
        """An amount of something, or the number of a flight or a room."""
        unit = self.rng.choice(
            ("oz", "cups", "lbs", "miles", "people", "minutes", "days", "ml", "grams", "degrees")
        )
        letters = "".join(self.rng.choices("abcdefgkluw", k=2))
        return self.rng.choice(
            (f"{self.digits(1, 2)} {unit}", f"a {self.digits(1, 2)} {unit}", f"{letters}{self.digits(2, 4)}")
        )

    def job(self) -> str:
        return self.rng.choice(jobs()).split(",")[0]

    def thing(self) -> str:
        return self.rng.choice(BRANDS) if self.chance(0.3) else self.rng.choice(NOUNS)
