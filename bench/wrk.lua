-- wrk's arguments after `--`: "post" sends 4 KB, "close" makes a new connection for each request. Ends with one line of JSON.

function init(args)
  for _, word in ipairs(args) do
    if word == "post" then
      wrk.method, wrk.body = "POST", string.rep("p", 4096)
    elseif word == "close" then
      wrk.headers["Connection"] = "close"
    end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "bytes": %d, "errors": %d, "p50": %f, "p99": %f, "p999": %f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3
  ))
end
