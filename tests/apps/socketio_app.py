"""Flask-SocketIO in threading mode."""

from flask import Flask
from flask_socketio import SocketIO, emit

application = Flask(__name__)
socketio = SocketIO(application, async_mode="threading")


@application.get("/")
def hello():
    return "hello"


@socketio.on("echo")
def echo(data):
    emit("echoed", data)
