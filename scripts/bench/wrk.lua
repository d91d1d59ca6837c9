-- Requests that plain wrk does not make, and its summary as one line of JSON. Arguments behind `--`: MODE [NUMBER]
--   plain        the same request each time
--   short N      every N-th request asks for the end of its connection
--   pipeline N   N requests at once
--   upload N     POST of N bytes

local mode, number, sent, made = "plain", 1, 0, {}

function init(arguments)
  mode = arguments[1] or mode
  number = tonumber(arguments[2] or 1)
  if mode == "upload" then
    wrk.method = "POST"
    wrk.body = string.rep("x", number)
  end
  made.usual = wrk.format()
  if mode == "pipeline" then
    made.usual = string.rep(made.usual, number)
  elseif mode == "short" then
    wrk.headers["Connection"] = "close"
    made.last = wrk.format()
  end
end

function request()
  sent = sent + 1
  if mode == "short" and sent % number == 0 then
    return made.last
  end
  return made.usual
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "micros": %d, "bytes": %d, "p50": %d, "p99": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
