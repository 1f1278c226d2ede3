"""The break-even of a replica as an SVG drawing, which any browser and most word processors show."""

from collections.abc import Callable
from decimal import Decimal
from xml.sax.saxutils import escape

from gateway.finance.tco import BreakEven

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 420, 90, 50, 20, 60
_TICKS = 5
_Scale = Callable[[Decimal], float]


def break_even_svg(result: BreakEven, title: str) -> str:
    """Cost over utilisation: the replica's line is level, the API's rises; they cross at the break-even."""
    api_at_full = result.capacity * result.api_nano
    top = max(api_at_full, Decimal(result.fixed_nano)) * Decimal("1.05") or Decimal(1)

    def x(utilisation: Decimal) -> float:
        return float(_LEFT + utilisation * (_WIDTH - _LEFT - _RIGHT))

    def y(nano: Decimal) -> float:
        return float(_HEIGHT - _BOTTOM - nano / top * (_HEIGHT - _TOP - _BOTTOM))

    none, whole, fixed = Decimal(0), Decimal(1), Decimal(result.fixed_nano)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 28, title, size=16),
        *_axes(x, y, top),
        _line(x(none), y(fixed), x(whole), y(fixed), "#0b6e4f"),
        _line(x(none), y(none), x(whole), y(api_at_full), "#b5402a"),
        _text(_LEFT + 8, y(fixed) - 8, "self-hosted: hosting and training", colour="#0b6e4f"),
        _text(x(whole) - 8, y(api_at_full) + 18, "API at list price", colour="#b5402a", anchor="end"),
    ]
    if result.utilisation <= 1:
        at = x(result.utilisation)
        parts += [
            _line(at, y(none), at, y(fixed), "#666", dashes="4 4"),
            _text(at + 6, y(none) - 8, f"break-even at {result.utilisation * 100:.1f} %"),
        ]
    if result.seen is not None and result.seen <= 1:
        parts += [
            f'<circle cx="{x(result.seen):.1f}" cy="{y(none):.1f}" r="5" fill="#1f4e9c"/>',
            _text(x(result.seen) + 8, y(none) - 24, f"seen: {result.seen * 100:.1f} %", colour="#1f4e9c"),
        ]
    return "\n".join([*parts, "</svg>\n"])


def _axes(x: _Scale, y: _Scale, top: Decimal) -> list[str]:
    none, whole = Decimal(0), Decimal(1)
    parts = [
        _line(x(none), y(none), x(whole), y(none), "black"),
        _line(x(none), y(none), x(none), y(top), "black"),
    ]
    for i in range(_TICKS + 1):
        share = Decimal(i) / _TICKS
        parts.append(_text(x(share), y(none) + 20, f"{share * 100:.0f} %", anchor="middle"))
        parts.append(_text(_LEFT - 8, y(top * share) + 4, f"{top * share / 10**9:,.2f}", anchor="end"))
    parts.append(_text(x(Decimal("0.5")), _HEIGHT - 14, "utilisation of the replica", anchor="middle"))
    parts.append(_text(14, _TOP - 8, "US dollars in the period"))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "none") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="2" '
        f'stroke-dasharray="{dashes}"/>'
    )


def _text(
    x: float, y: float, text: str, *, colour: str = "black", anchor: str = "start", size: int = 13
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
