import hashlib
import re
from pathlib import Path

from django.conf import settings
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_exempt


def hello(request):
    return HttpResponse("Hello from Django")


def upload(request):
    """A form with a file; GET gives the CSRF token."""
    if request.method == "GET":
        return JsonResponse({"token": get_token(request)})
    file = request.FILES["file"]
    target = settings.MEDIA_ROOT / Path(file.name).name
    found = hashlib.sha256()
    with open(target, "wb") as out:
        for block in file.chunks():
            found.update(block)
            out.write(block)
    return JsonResponse({"length": file.size, "sha256": found.hexdigest(), "title": request.POST["title"]})


@csrf_exempt
def raw(request):
    """A body without a form."""
    return JsonResponse({"length": len(request.body), "sha256": hashlib.sha256(request.body).hexdigest()})


def stream(request):
    return StreamingHttpResponse((f"row {number}\n" for number in range(10_000)), content_type="text/plain")


class Noting:
    """A stream without an end that notes its close()."""

    def __iter__(self):
        return self

    def __next__(self):
        return b"x" * 10_000

    def close(self):
        (settings.MEDIA_ROOT / "closed").touch()


def stream_closed(request):
    return StreamingHttpResponse(Noting())


def download(request):
    return FileResponse(open(settings.MEDIA_ROOT / "download.bin", "rb"), as_attachment=True)


def ranged(request):
    """One byte range of the file, as a media server answers it."""
    file = settings.MEDIA_ROOT / "download.bin"
    size = file.stat().st_size
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    handle = open(file, "rb")
    if match is None:
        return FileResponse(handle, headers={"Accept-Ranges": "bytes"})
    first = int(match[1])
    last = min(int(match[2] or size - 1), size - 1)
    if first > last:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    handle.seek(first)
    response = FileResponse(handle, status=206)
    response["Content-Length"] = last - first + 1
    response["Content-Range"] = f"bytes {first}-{last}/{size}"
    return response


def fail(request):
    raise LookupError("a fault in a view")
