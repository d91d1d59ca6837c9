"""Bottle: hello, and the body it reads by itself."""

from bottle import Bottle, request

app = Bottle()


@app.route("/")
def hello():
    return "Hello from Bottle"


@app.route("/body", method="POST")
def body():
    return request.body.read()
