"""The page that Tapster serves when it is started without an application."""

import sys

VERSION = ""
WORKERS = 1

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tapster works</title>
<style>
:root {{ color-scheme: light dark; --text: #1d2327; --quiet: #5d6870; --back: #f6f4ef; --card: #fff; --line: #e2ddd2; --accent: #b3541e; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --text: #e7e4dd; --quiet: #9aa3a9; --back: #16181a; --card: #1f2326; --line: #33393d; --accent: #f0a36b; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--back); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }}
main {{ max-width: 56rem; margin: 0 auto; padding: 3rem 1.25rem; }}
h1 {{ margin: 0; font-size: 2.25rem; letter-spacing: -.02em; }}
h1 span {{ color: var(--accent); }}
h2 {{ margin: 2.5rem 0 .75rem; font-size: 1.1rem; }}
p {{ color: var(--quiet); }}
pre {{ margin: 0; padding: .9rem 1.1rem; overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }}
code, pre, td {{ font-family: ui-monospace, monospace; font-size: .9rem; }}
pre b {{ color: var(--accent); font-weight: 600; }}
ul {{ display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 0; padding: 0; list-style: none; }}
li {{ flex: 1 1 9rem; padding: .8rem 1.1rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }}
li small {{ display: block; color: var(--quiet); }}
.scroll {{ overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }}
table {{ width: 100%; border-collapse: collapse; }}
td {{ padding: .4rem 1.1rem; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }}
tr:last-child td {{ border-bottom: 0; }}
td:first-child {{ color: var(--accent); white-space: nowrap; }}
</style>
</head>
<body>
<main>
<h1>Tapster <span>works</span>.</h1>
<p>This is the built-in page. It is a WSGI application too, served the way yours will be.</p>
<ul>
<li><small>Tapster</small>{version}</li>
<li><small>Workers</small>{workers}</li>
<li><small>Python</small>{python}</li>
</ul>
<h2>Serve your own application</h2>
<pre>$ <b>tapster myapp:app</b></pre>
<p>where <code>myapp.py</code> holds a WSGI callable named <code>app</code>: a Flask or Django application, or a plain function.</p>
<h2>The environ of this request</h2>
<div class="scroll"><table>
{rows}
</table></div>
</main>
</body>
</html>
"""


def text(value):
    """A value as shown: strings are latin-1 views of bytes that are usually UTF-8."""
    if isinstance(value, str):
        return value.encode("latin-1", "replace").decode("utf-8", "replace")
    return repr(value)


def application(environ, start_response):
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        body = b"Only GET and HEAD are served here.\n"
        start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Type", "text/plain; charset=utf-8")])
        return [body]
    if environ["PATH_INFO"] != "/":
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"Nothing is here; the welcome page is at /.\n"]
    # Not at the top: it takes longer than the rest of the start.
    from html import escape

    rows = "\n".join(
        "<tr><td>%s</td><td>%s</td></tr>" % (escape(text(key)), escape(text(value))) for key, value in sorted(environ.items())
    )
    page = PAGE.format(version=escape(VERSION), workers=WORKERS, python=escape(sys.version.split()[0]), rows=rows)
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
        ],
    )
    return [page.encode("utf-8")]
