"""Flask: forms, cookies, streaming, uploads."""

import hashlib

from flask import Flask, Response, jsonify, make_response, redirect, request, session, stream_with_context

app = Flask(__name__)
app.secret_key = "only for tests"


@app.route("/")
def hello():
    return "Hello from Flask"


@app.route("/form", methods=["GET", "POST"])
def form():
    if request.method == "POST":
        session["name"] = request.form["name"]
        return redirect("/form")
    return f"name is {session.get('name', 'unknown')}"


@app.route("/cookies")
def cookies():
    response = make_response(jsonify(request.cookies))
    response.set_cookie("first", "1")
    response.set_cookie("second", "caf\u00e9")
    return response


@app.route("/stream")
def stream():
    def rows():
        for number in range(1000):
            yield f"{request.args.get('prefix', 'row')} {number}\n"

    return Response(stream_with_context(rows()), mimetype="text/plain")


@app.route("/upload", methods=["PUT", "POST"])
def upload():
    found, length = hashlib.sha256(), 0
    if "file" in request.files:
        source = request.files["file"].stream
    else:
        source = request.stream
    for block in iter(lambda: source.read(65536), b""):
        found.update(block)
        length += len(block)
    return jsonify(length=length, sha256=found.hexdigest(), declared=request.content_length)


@app.route("/json", methods=["POST"])
def json():
    return jsonify(request.get_json())


@app.route("/fail")
def fail():
    raise LookupError("a fault in a view")


@app.route("/url/<path:rest>")
def url(rest):
    return jsonify(rest=rest, url=request.url, remote=request.remote_addr)
