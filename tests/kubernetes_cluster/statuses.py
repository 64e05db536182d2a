"""How the API server says no: Status objects, with the reasons and codes of Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.kubernetes_cluster.resources import Resource

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "AlreadyExists",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    501: "NotImplemented",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiRefusal(Exception):
    """An answer other than success."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        details: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = REASONS[code] if reason is None else reason
        self.details = details
        self.metadata = metadata or {}
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details is not None:
            status["details"] = self.details
        return status


class NotEmulated(ApiRefusal):
    """Something that Kubernetes has and the stand-in does not: a test that needs it must fail."""

    def __init__(self, what: str) -> None:
        super().__init__(501, f"the stand-in does not know {what}")


def details_of(resource: Resource, name: str, **more: Any) -> dict[str, Any]:
    found = {"name": name, "group": resource.group, "kind": resource.plural, **more}
    return {key: value for key, value in found.items() if value}


def not_found(resource: Resource, name: str) -> ApiRefusal:
    return ApiRefusal(
        404, f'{resource.qualified} "{name}" not found', details=details_of(resource, name)
    )


def already_exists(resource: Resource, name: str) -> ApiRefusal:
    return ApiRefusal(
        409, f'{resource.qualified} "{name}" already exists', details=details_of(resource, name)
    )


def conflict(resource: Resource, name: str, why: str) -> ApiRefusal:
    return ApiRefusal(
        409,
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}',
        reason="Conflict",
        details=details_of(resource, name),
    )


def forbidden(resource: Resource, name: str, why: str) -> ApiRefusal:
    return ApiRefusal(
        403,
        f'{resource.qualified} "{name}" is forbidden: {why}',
        details=details_of(resource, name),
    )


def invalid(resource: Resource, name: str, problems: list[tuple[str, str]]) -> ApiRefusal:
    """Refuse an object for its fields: (field, what is wrong with it)."""
    words = [f"{field}: {problem}" for field, problem in problems]
    said = words[0] if len(words) == 1 else f"[{', '.join(words)}]"
    kinds = {
        "Required value": "FieldValueRequired",
        "Invalid value": "FieldValueInvalid",
        "Forbidden": "FieldValueForbidden",
        "Unsupported value": "FieldValueNotSupported",
    }
    causes = [
        {
            "reason": kinds.get(problem.partition(":")[0], "FieldValueInvalid"),
            "message": problem,
            "field": field,
        }
        for field, problem in problems
    ]
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return ApiRefusal(
        422,
        f'{kind} "{name}" is invalid: {said}',
        details={**details_of(resource, name), "kind": resource.kind, "causes": causes},
    )


def success(**more: Any) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", **more}
