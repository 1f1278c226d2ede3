"""Figures: taken within repetitions, named as ARCHITECTURE has them, absent where nothing was measured."""

import pytest

from benchmarks.peers.kinds import Sample
from benchmarks.peers.ours import metric
from benchmarks.peers.report import Samples, figures, growth

EXPOSITION = """# HELP headgate_in_flight Requests being handled.
# TYPE headgate_in_flight gauge
headgate_in_flight{worker="1"} 2.0
headgate_in_flight{worker="2"} 1.0
headgate_in_flight_max 9.0
headgate_ledger_backlog 0.0
"""


def sample(peer: str, repetition: int, kind: str = "sat", **values: float) -> Sample:
    measured = dict.fromkeys(
        ("cpu_us", "chunk_us", "per_second", "chunks_per_second", "p50_ms", "p99_ms", "first_p50_ms"), 1.0
    )
    memory = {"warm_rss_mb": 100.0, "rss_mb": 100.0}
    return Sample(
        peer=peer, kind=kind, repetition=repetition, failed=0, trouble="", **measured | memory | values
    )


def test_a_ratio_is_the_median_of_ratios_within_a_repetition() -> None:
    """A machine that is twice as slow in one repetition changes no ratio; medians apart would say 1.0."""
    ours, theirs = (20.0, 40.0, 30.0), (10.0, 20.0, 30.0)
    samples = Samples(
        [
            *(sample("headgate", n, cpu_us=value) for n, value in enumerate(ours)),
            *(sample("nginx", n, cpu_us=value) for n, value in enumerate(theirs)),
        ]
    )
    assert figures(samples)["cpu_ratio_nginx"] == 2.0


def test_each_figure_has_its_own_kind_and_base() -> None:
    """Every named figure comes from the load and the peer that its name says."""
    samples = Samples(
        [
            sample("headgate", 0, "sat", cpu_us=60.0, rss_mb=104.0),
            sample("headgate", 0, "big", cpu_us=90.0, rss_mb=110.0),
            sample("headgate", 0, "fixed", p50_ms=0.7, p99_ms=3.0, rss_mb=109.0),
            sample("headgate", 0, "paced", chunk_us=15.0, first_p50_ms=26.0, rss_mb=105.0),
            sample("nginx", 0, "sat", cpu_us=30.0),
            sample("nginx", 0, "fixed", p50_ms=0.5, p99_ms=2.0),
            sample("nginx", 0, "paced", chunk_us=12.0, first_p50_ms=25.5),
            sample("vllm-router", 0, "sat", cpu_us=120.0),
            sample("vllm-router", 0, "big", cpu_us=100.0),
            sample("litellm", 0, "sat", cpu_us=7200.0),
            sample("nginx again", 0, "sat", cpu_us=33.0),
        ]
    )
    found = figures(samples)
    assert (
        found.items()
        >= {
            "cpu_ratio_nginx": 2.0,
            "cpu_ratio_vllm_router": 0.5,
            "cpu_ratio_litellm": 0.0083,
            "cpu_ratio_vllm_router_32k": 0.9,
            "chunk_ratio_nginx": 1.25,
            "ttft_added_ms": 0.5,
            "added_p50_ms": 0.2,
            "added_p99_ms": 1.0,
            "rss_mb": 110.0,
            "rss_growth": 0.05,
            "noise_cpu_ratio_nginx": 1.1,
            "vllm_router_big_cpu_us": 100.0,
        }.items()
    )


def test_what_was_not_measured_is_no_figure() -> None:
    """A run of one kind without LiteLLM gives no ratio to LiteLLM or of other kinds, and no null."""
    found = figures(Samples([sample("headgate", 0), sample("nginx", 0)]))
    assert "cpu_ratio_nginx" in found
    assert not {"cpu_ratio_litellm", "added_p50_ms", "chunk_ratio_nginx"} & found.keys()
    assert None not in found.values()


def test_growth_is_not_one_outlier() -> None:
    """The end over the start as a fraction, and a single peak at either end does not count."""
    assert growth([500.0, *[100.0] * 20, *[105.0] * 20, 900.0]) == pytest.approx(0.05)


def test_a_metric_is_summed_over_labels_and_by_its_whole_name() -> None:
    """Workers add up; a longer name that begins the same is another metric; a missing one is an error."""
    assert metric(EXPOSITION, "headgate_in_flight") == 3
    assert metric(EXPOSITION, "headgate_ledger_backlog") == 0
    with pytest.raises(KeyError):
        metric(EXPOSITION, "headgate_ledger")
