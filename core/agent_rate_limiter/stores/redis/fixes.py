"""What to do about an error of Redis, or of its client. First match counts; substrings live here and nowhere else."""

from __future__ import annotations

_FIXES = (
    (("Authentication", "NOAUTH", "WRONGPASS"), "Give a user and a password that the server takes."),
    (
        ("NOPERM", "NoPermission", "script can't", "ACL failure"),
        "Let this user do what docs/stores.md lists, on the keys and channels 'arl*'.",
    ),
    (("ReadOnly", "READONLY"), "That is a replica: name the primary, or use redis+sentinel://."),
    (("OutOfMemory", "OOM"), "Give the server more memory, or let it evict other keys."),
    (("CERTIFICATE_VERIFY_FAILED",), "Name who signed its certificate: ?ssl_ca_certs=/path/to/ca.pem."),
    (("closed by server", "reset by peer"), "Is it going down? Or, where it speaks TLS, write rediss for redis."),
    (
        ("unknown command 'SENTINEL'",),
        "That is no Sentinel: write redis://host:6379, or name the Sentinel's port, such as 26379.",
    ),
    (
        ("unknown command 'EVALSHA'", "unknown command 'GET'"),
        "That is a Sentinel: write redis+sentinel://host:26379/service.",
    ),
    (("MasterNotFound",), "A failover takes some seconds; if it stays so, look at the service's name."),
    (
        ("Cluster mode is not enabled",),
        "That server is alone: write redis for redis+cluster. (Or its user may not ask for CLUSTER SLOTS.)",
    ),
    (("Moved",), "That is one of a Cluster's nodes: write redis+cluster for redis."),
    (("Cluster", "CLUSTERDOWN", "SlotNotCovered"), "A failover takes some seconds; see CLUSTER INFO there."),
    (
        ("connecting to server",),
        "Is it there, and does it speak TLS, if that is what rediss asks for? ?timeout=5 waits longer.",
    ),
    (("Timeout",), "The server is slow, paused or far away: ?timeout=5 waits longer."),
    (("BUSY",), "Somebody's script runs there for long: it is tried again."),
    (("max number of clients",), "Raise the server's maxclients, or let fewer processes and limiters connect."),
    (("DB index",), "Give a smaller number, or raise 'databases' in the server's configuration."),
    (("Protocol error",), "What answers there is no Redis: mend the address."),
    (("BusyLoading", "LOADING"), "It loads its data: it will be back soon."),
    (("Connection", "refused"), "Start it, or mend the address."),
)
_OTHERWISE = "See the server's log."


def fix_of(error: Exception) -> str:
    """Return one sentence."""
    said = f"{type(error).__name__} {error}"
    return next((fix for marks, fix in _FIXES if any(mark in said for mark in marks)), _OTHERWISE)
