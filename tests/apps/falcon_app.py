"""Falcon: hello, and the body as a stream that is read without a length."""

import falcon


class Hello:
    def on_get(self, request, response):
        response.content_type = falcon.MEDIA_TEXT
        response.text = "Hello from Falcon"


class Body:
    def on_post(self, request, response):
        response.data = request.bounded_stream.read()


app = falcon.App()
app.add_route("/", Hello())
app.add_route("/body", Body())
