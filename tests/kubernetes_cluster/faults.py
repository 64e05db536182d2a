"""What may go wrong with the API server, on demand; the tests' own calls are spared."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.statuses import ApiRefusal

if TYPE_CHECKING:
    from tests.kubernetes_cluster.resources import Target

TESTS_AGENT = "muster-tests"
ABOUT_ONESELF = ("authentication.k8s.io", "authorization.k8s.io")
"""Groups that every user may ask about themselves, by the role system:basic-user."""


@dataclass
class Hold:
    """Answers to be kept back after the call has been done."""

    verb: str
    plural: str
    times: int
    seconds: float | None
    cut: bool
    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Refusals:
    """So many calls to be refused, with a code and headers."""

    times: int
    code: int
    message: str
    headers: dict[str, str]


class Faults:
    """The faults that are set now."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.clear()

    def clear(self) -> None:
        """Let nothing be wrong; the token stays."""
        self.denied: list[dict[str, Any]] = []
        self.refusals: list[Refusals] = []
        self.rights: set[tuple[str, str, str]] | None = None
        self.unmuted = asyncio.Event()
        self.unmuted.set()
        for hold in getattr(self, "holds", []):
            hold.released.set()
        self.holds: list[Hold] = []

    def check_token(self, header: str) -> None:
        if header != f"Bearer {self.token}":
            raise ApiRefusal(401, "Unauthorized")

    def check(self, target: Target, verb: str) -> None:
        """Refuse a call that is not allowed, or that a fault is set for."""
        resource = target.resource
        if not self.allows(resource.group, _full(target), verb):
            where = f' in the namespace "{target.namespace}"' if target.namespace else ""
            where = where or " at the cluster scope"
            group = f' in API group "{resource.group}"'
            named = f' "{target.name}"' if target.name else ""
            raise ApiRefusal(
                403,
                f'{resource.qualified}{named} is forbidden: User "muster" cannot {verb} resource'
                f' "{_full(target)}"{group}{where}',
                details={"group": resource.group, "kind": resource.plural, "name": target.name},
            )
        for refusals in list(self.refusals):
            refusals.times -= 1
            if refusals.times <= 0:
                self.refusals.remove(refusals)
            raise ApiRefusal(refusals.code, refusals.message, headers=refusals.headers)

    def allows(self, group: str, resource: str, verb: str) -> bool:
        if self.rights is None or group in ABOUT_ONESELF:
            return True
        return (group, resource, verb) in self.rights

    def deny(self, plural: str, item: dict[str, Any]) -> None:
        """Refuse an object in the name of an admission webhook."""
        for rule in self.denied:
            if rule["resource"] == plural:
                said = f'admission webhook "{rule["webhook"]}" denied the request'
                raise ApiRefusal(rule["code"], f"{said}: {rule['message']}", reason=rule["reason"])

    async def hold(self, target: Target, verb: str) -> bool:
        """Keep the answer to a call back where that is set; say whether to cut the connection."""
        for hold in self.holds:
            if (hold.verb, hold.plural) == (verb, target.resource.plural) and hold.times > 0:
                hold.times -= 1
                if not hold.cut:
                    try:
                        await asyncio.wait_for(hold.released.wait(), hold.seconds)
                    except TimeoutError:
                        return False
                return hold.cut
        return False


def _full(target: Target) -> str:
    part = f"/{target.subresource}" if target.subresource else ""
    return f"{target.resource.plural}{part}"
