"""`GET /docs`: what /openapi.json says, shown by Swagger UI, all of it from this server: no internet is needed."""

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

# Addresses without a leading slash, so that the page works under any prefix that a proxy takes off.
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>stitchserve API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/static/swagger-ui.css">
<div id="api">What this server answers is described in <a href="openapi.json">openapi.json</a>.</div>
<script src="docs/static/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
# validatorUrl: by default a service on the internet is asked to check the document.
START = """SwaggerUIBundle({url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});
"""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


def add_docs(app: FastAPI) -> None:
    """The page, its script, and Swagger UI as the package fastapi-offline ships it."""
    app.include_router(router)
    app.mount("/docs/static", StaticFiles(packages=[("fastapi_offline", "static")]))


@router.get("/docs")
async def docs() -> HTMLResponse:
    """The page; its browser takes nothing from elsewhere."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    """What the page does; beside it, since its policy allows no script inside."""
    return Response(START, media_type="text/javascript")
