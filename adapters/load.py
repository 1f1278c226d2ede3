"""What a replica says of its work: vLLM's own metrics, as far as routing and scaling want them."""

import re

import msgspec

# By field, the names that versions of vLLM give the gauge.
_GAUGES = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_use": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
}
_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)", re.MULTILINE)
_MAX_LORA = re.compile(r'max_lora="(\d+)"')
_RUNNING_LORA = re.compile(r'running_lora_adapters="([^"]*)"')


class ReplicaLoad(msgspec.Struct, frozen=True, kw_only=True):
    running: int = 0  # requests that it computes
    waiting: int = 0  # requests in its queue
    kv_use: float = 0.0  # share of the KV cache in use, in [0, 1]
    slots: int = 0  # adapters that fit into one batch; 0: not told before the first adapter is asked
    active: tuple[str, ...] = ()  # adapters of the present batch


def parse_load(text: str) -> ReplicaLoad:
    """From the Prometheus text of a replica's `/metrics`. What is missing is 0; engines are summed up."""
    found: dict[str, float] = {}
    info: tuple[float, str] = (0.0, "")  # of several, the newest: its value is a time
    for sample in _SAMPLE.finditer(text):
        name, value = sample["name"], _number(sample["value"])
        if name == "vllm:lora_requests_info":
            info = max(info, (value, sample["labels"] or ""))
        found[name] = found.get(name, 0.0) + value
    values = {
        field: next((found[name] for name in names if name in found), 0.0) for field, names in _GAUGES.items()
    }
    slots, active = _MAX_LORA.search(info[1]), _RUNNING_LORA.search(info[1])
    return ReplicaLoad(
        running=round(values["running"]),
        waiting=round(values["waiting"]),
        kv_use=values["kv_use"],
        slots=int(slots[1]) if slots else 0,
        active=tuple(filter(None, active[1].split(","))) if active else (),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
