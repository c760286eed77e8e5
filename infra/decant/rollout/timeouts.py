"""Times that concern the coordinator alone, in seconds; those that machines share are in `decant_host.protocol`."""

from __future__ import annotations

PROBE_TIMEOUT = 5.0
"""For one whole answer of the public URL."""

PROBE_INTERVAL = 0.1
"""Between two requests of the prober."""

URL_TIMEOUT = 15.0
"""Until the public URL must give the new release. The machines wait for their confirm meanwhile, so this and the
confirms must fit into `protocol.CONFIRM_TIMEOUT`."""

ROUTING_TIMEOUT = 3.0
"""Until a load balancer's URL shows that it leads to a machine of this stack at all."""

BALANCER_TIMEOUT = 300.0
"""Until a load balancer sends requests to every machine: the name of a new one may take minutes to be known, and its
health checks half a minute to pass."""

LEASE_REPLY_TIMEOUT = 30.0
"""For the answer to the request for a machine's lease: decant-host starts, and waits `protocol.LEASE_PATIENCE` for an
attempt that has just ended."""

CLOSE_TIMEOUT = 5.0
"""For a machine's agent to give its lease back when the attempt ends."""
