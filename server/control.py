"""`PUT /control`: the policy and the SLO, changed while the server runs, by whoever has the admin key."""

import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from server.controller import POLICY_NAMES
from server.errors import BadControl, Forbidden, Unauthorized
from server.openapi import ANYWHERE, refusals
from server.parameters import only
from server.routes import Serving, status
from server.schemas import Status
from server.tenants import digest, key_in

router = APIRouter(responses=ANYWHERE)


class Control(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    policy: Annotated[str, Field(max_length=40)] | None = Field(None, description=POLICY_NAMES)
    slo_ms: Annotated[float, Field(strict=True, ge=0.01, le=3_600_000)] | None = Field(
        None, description="the deadline of a request that brings none"
    )


async def admin(request: Request, serving: Serving) -> None:
    """Raises Forbidden where there is no admin key, Unauthorized for a request without it."""
    expected = serving.settings.admin_key_sha256
    if expected is None:
        raise Forbidden("this server takes no changes while it runs; start it with --admin-key-sha256 to allow them")
    key = key_in(request.headers)
    if key is None or not hmac.compare_digest(digest(key), expected):
        raise Unauthorized("send the admin key as 'Authorization: Bearer KEY'")


@router.put(
    "/control",
    dependencies=[Depends(admin), Depends(only())],
    responses=refusals(401, 403, 422),
    summary="Change the policy or the SLO",
)
async def control(serving: Serving, change: Control) -> Status:
    """Both hold from the next batch and the next request on; `fixed:<stitch>` pins a stitch, `pace` releases it."""
    if change.policy is not None:
        try:
            serving.controller.use(change.policy)
        except ValueError as error:
            raise BadControl(str(error), field="policy") from None
    if change.slo_ms is not None:
        serving.controller.slo = change.slo_ms / 1e3
    return await status(serving)
