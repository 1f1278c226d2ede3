"""Which addresses are our own."""

import ipaddress

_SHARED = ipaddress.ip_network("100.64.0.0/10")  # carriers' and overlay networks: not the public internet


def is_loopback(host: str) -> bool:
    """Whether a host means this machine, by its name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_own_network(host: str) -> bool:
    """Whether `host` is an address that is not public."""
    try:
        return is_local(host)
    except ValueError:
        return host == "localhost"


def is_local(address: str) -> bool:
    """Whether an IP address is of this machine or of a private network. Raises ValueError: it is none."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_loopback or ip.is_private or ip.is_link_local or ip in _SHARED
