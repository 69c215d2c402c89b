"""The HTTP endpoint: what `trex2 predict` does, for a picture and prompts that are sent.

The fields of a request are the command's options. Every answer but a prompt file is JSON, an error's one line in
`error`: 400 where a field is missing, unknown or not in its form, 413 beyond a limit, 415 for what is no picture or no
form, 422 for what cannot be looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as AnyHTTPException

from trex2_lightning.data.images.image_files import ImageError
from trex2_lightning.errors import InputError
from trex2_lightning.inference.marks import MARK_FORMS, typed_marks
from trex2_lightning.inference.prediction_files import prediction_values
from trex2_lightning.inference.serving.served_detector import ServedDetector, Wanted
from trex2_lightning.inference.serving.serving_limits import ServingLimits, TooLargeError, check_picture
from trex2_lightning.prompting.prompt_set import Mix, PromptSet

TEXTS = ("text", *MARK_FORMS, "negative", "mix", "threshold")  # fields; all others are files
MOST_FILES, MOST_TEXTS = 32, 2000  # of a request


class _Sent(NamedTuple):
    """A request, read and in its form."""

    texts: dict[str, list[str]]
    files: dict[str, list[tuple[str, bytes]]]  # by field: name and content
    mix: Mix
    threshold: float | None

    def file(self, field: str) -> tuple[str, bytes]:
        """The one file of the field."""
        sent = self.files.get(field, [])
        if len(sent) != 1:
            raise HTTPException(400, f"{len(sent)} files are sent as '{field}': send one")
        return sent[0]


def build_api(served: ServedDetector, limits: ServingLimits) -> FastAPI:
    """`POST /predict`, to what is found, and `POST /prompts`, to a prompt file."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        sent, owner = await _read(request), _owner(request)
        name, picture = sent.file("image")
        prompts = await _prompts(served, owner, sent, limits)
        negative = tuple(sent.texts["negative"])
        found = await served.ask(served.find, owner, picture, prompts, sent.threshold, negative)
        present = await served.ask(served.present, owner, picture, prompts)
        return JSONResponse(prediction_values(Path(name), found, present))

    @app.post("/prompts")
    async def write_prompts(request: Request) -> Response:
        sent = await _read(request)
        prompts = await _prompts(served, _owner(request), sent, limits)
        if not prompts.names:
            raise HTTPException(400, "there is nothing to write: send a text, a box, a point or a reference")
        return Response(await served.ask(served.written, prompts), media_type="application/octet-stream")

    @app.exception_handler(InputError)
    async def refuse(_: Request, error: InputError) -> JSONResponse:
        status = 413 if isinstance(error, TooLargeError) else 415 if isinstance(error, ImageError) else 422
        return JSONResponse({"error": str(error)}, status)

    @app.exception_handler(AnyHTTPException)
    async def refuse_request(_: Request, error: AnyHTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def fail(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"error": "this is a fault of the server, whose log has more"}, 500)

    return app


async def _read(request: Request) -> _Sent:
    """Raises HTTPException 415 or 400."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(415, "the body is no form: send multipart/form-data, as curl -F does")
    texts: dict[str, list[str]] = {name: [] for name in TEXTS}
    files: dict[str, list[tuple[str, bytes]]] = {}
    async with request.form(max_files=MOST_FILES, max_fields=MOST_TEXTS) as form:
        for field, value in form.multi_items():
            if isinstance(value, UploadFile):
                files.setdefault(field, []).append((value.filename or field, await value.read()))
            elif field in texts:
                texts[field].append(value)
            else:
                raise HTTPException(400, f"there is no field '{field}': send a file, or one of {', '.join(TEXTS)}")
    if strange := [field for field in files if field in texts]:
        raise HTTPException(400, f"'{strange[0]}' is sent as a file: send its text")
    mix = _one(texts["mix"], "mix", str) or "half"
    if mix not in get_args(Mix):
        raise HTTPException(400, f"mix '{mix}': send {' or '.join(get_args(Mix))}")
    return _Sent(texts, files, mix, _one(texts["threshold"], "threshold", float))  # type: ignore[arg-type]


async def _prompts(served: ServedDetector, owner: str, sent: _Sent, limits: ServingLimits) -> PromptSet:
    try:
        marks = typed_marks({word: sent.texts[word] for word in MARK_FORMS})
    except InputError as error:
        raise HTTPException(400, str(error)) from error
    pictures = {field: sent.file(field)[1] for field in (file or "image" for file in marks)}
    if unused := sent.files.keys() - pictures.keys() - {"image", "prompts"}:
        raise HTTPException(400, f"the file '{min(unused)}' is of no reference: send reference=NAME={min(unused)}:...")
    if "image" in sent.files:
        pictures["image"] = sent.file("image")[1]
    for field, picture in pictures.items():
        check_picture(picture, field, limits)
    loaded = [await served.ask(served.read, data, name) for name, data in sent.files.get("prompts", [])]
    references = tuple((pictures[file or "image"], shown) for file, shown in marks.items())
    return await served.ask(
        served.prompts, owner, Wanted(tuple(sent.texts["text"]), references, tuple(loaded), sent.mix)
    )


def _one(given: Sequence[str], field: str, kind: Callable[[str], Any]) -> Any:
    """The value of a field that may be sent once; None: it is not."""
    try:
        [value] = [kind(text) for text in given] or [None]
    except ValueError as error:
        raise HTTPException(400, f"{field} {' '.join(given)}: send one, and in its form") from error
    return value


def _owner(request: Request) -> str:
    """Whose pictures they are: the machine's that sends them."""
    return request.client.host if request.client else ""
