"""Loads from cAdvisor, for who has `cAdvisor_address` in genie.conf, as CNI-Genie did (its v1.3 API, `containers/`).

The root container's network is the host's. cAdvisor keeps several samples of it; two of them give the rate that
`load.py` else reads from the host's counters. It leaves out interfaces named veth…, as bridge and ptp make them: these
count as idle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from genie.cni.errors import CniError, Code

LIMIT = 16 << 20  # bytes of an answer


def rates(address: str, timeout: float) -> dict[str, float]:
    """What each host interface has sent, in bytes per second, between cAdvisor's first and last sample.

    Raises:
        CniError: 7 for an address that is none, 11 when cAdvisor does not answer, or with something else.
    """
    try:
        samples = [_sample(each) for each in _ask(address, timeout)["stats"]]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _away(address, f"its answer is not understood: {type(error).__name__}: {error}") from error
    if len(samples) < 2:
        return {}
    (began, before), *_, (ended, after) = sorted(samples, key=lambda sample: sample[0])
    seconds = max(ended - began, 1e-6)
    return {name: max(sent - before[name], 0) / seconds for name, sent in after.items() if name in before}


def _sample(data: Mapping[str, Any]) -> tuple[float, dict[str, int]]:
    """One sample: when, and the bytes sent by interface."""
    from datetime import datetime

    when, fraction = data["timestamp"], 0.0
    if "." in when:  # nanoseconds, of which datetime takes no more than six digits
        when, _, rest = when.partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        when, fraction = when + rest[len(digits) :], float(f"0.{digits}")
    interfaces = (data.get("network") or {}).get("interfaces") or []
    return datetime.fromisoformat(when).timestamp() + fraction, {
        one["name"]: int(one["tx_bytes"]) for one in interfaces
    }


def _ask(address: str, timeout: float) -> Any:
    import http.client

    url = urlsplit(address.strip() if "//" in address else f"http://{address.strip()}")
    try:
        host, port = url.hostname, url.port or 80
    except ValueError:
        host, port = None, 0
    if url.scheme != "http" or not host:
        raise CniError(Code.INVALID_CONFIG, f"genie.conf: cAdvisor_address: expected an http URL, found {address!r}")
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(
            "GET", f"{url.path.rstrip('/')}/api/v1.3/containers/", headers={"Accept": "application/json"}
        )
        response = connection.getresponse()
        body = response.read(LIMIT)
    except (OSError, http.client.HTTPException) as error:
        raise _away(address, str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if response.status != 200:
        raise _away(address, f"it answers {response.status}")
    return json.loads(body)


def _away(address: str, why: str) -> CniError:
    return CniError(Code.TRY_AGAIN, f"cAdvisor at {address} does not tell the loads: {why}")
