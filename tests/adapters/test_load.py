"""What is read of a replica's metrics."""

from adapters.load import ReplicaLoad, parse_load
from tests.support.vllm import RunningVllm

TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="sluice-4m"} 3.0
vllm:num_requests_running{engine="1",model_name="sluice-4m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="sluice-4m"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="sluice-4m"} 0.25
vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1.7e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a@1,b@2",waiting_lora_adapters="c"} 1.8e+09
python_info{version="3.11"} 1.0
"""


def test_gauges_and_adapters() -> None:
    """Engines are summed up; of the lines on adapters the newest counts."""
    assert parse_load(TEXT) == ReplicaLoad(running=5, waiting=7, kv_use=0.25, slots=4, active=("a@1", "b@2"))


def test_older_names_and_nothing() -> None:
    """An older vLLM's name for the cache; a text without any of it, or none at all, is no load."""
    assert parse_load("vllm:gpu_cache_usage_perc 0.5\n").kv_use == 0.5
    assert parse_load("") == parse_load("<html>not found</html>") == ReplicaLoad()
    assert parse_load("vllm:num_requests_running many\n").running == 0


async def test_a_real_one(vllm: RunningVllm) -> None:
    """vLLM's own text is understood: it idles, and its cache is empty."""
    replica = vllm.replica()
    found = await replica.work()
    text = (await replica._ask("GET", "/metrics")).text
    await replica.aclose()
    assert (found.running, found.waiting) == (0, 0)
    assert 0 <= found.kv_use < 1
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert name in text
