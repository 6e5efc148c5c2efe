-- One script for every scenario; arguments after `--` are name=value:
--   method=POST body=10240   a request with a body of that many bytes
--   browser=1                the 13 header fields of a browser
--   close=1                  Connection: close
--   pipeline=16              so many requests in one write
-- The request is rendered once; only pipelining calls Lua again, once a batch.
-- The last line printed is JSON, which bench/lib/wrk.py reads.

local browser = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
  ["Accept-Language"] = "en-US,en;q=0.7,de;q=0.3",
  ["Accept-Encoding"] = "gzip, deflate, br, zstd",
  ["Referer"] = "http://127.0.0.1/catalogue/list?page=2&sort=name",
  ["Cookie"] = "session=eyJfaWQiOiI1YzFmMGQ3ZTk4In0; csrftoken=Zq8sVq2nM3kHc7; theme=dark",
  ["DNT"] = "1",
  ["Upgrade-Insecure-Requests"] = "1",
  ["Sec-Fetch-Dest"] = "document",
  ["Sec-Fetch-Mode"] = "navigate",
  ["Sec-Fetch-Site"] = "same-origin",
  ["Cache-Control"] = "max-age=0",
}

function init(args)
  local option = {}
  for _, arg in ipairs(args) do
    local name, value = arg:match("^(%w+)=(.*)$")
    if name then
      option[name] = value
    end
  end
  if option.browser then
    for name, value in pairs(browser) do
      wrk.headers[name] = value
    end
  end
  if option.close then
    wrk.headers["Connection"] = "close"
  end
  if option.method then
    wrk.method = option.method
  end
  if option.body then
    wrk.body = string.rep("x", tonumber(option.body))
  end
  if option.pipeline then
    local batch = string.rep(wrk.format(), tonumber(option.pipeline))
    request = function()
      return batch
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"us":%d,"bytes":%d,"p50":%.1f,"p90":%.1f,"p99":%.1f,"max":%.1f,' ..
    '"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50),
    latency:percentile(90), latency:percentile(99), latency.max, errors.connect, errors.read,
    errors.write, errors.timeout, errors.status))
end
