-- Sends the requests of a file, prepared beforehand, one after the other, and prints one line of JSON at the end.
-- wrk ... -s wrk.lua URL -- FILE; in the file each request follows its length in decimal and a line break.

local requests, last = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  while true do
    local size = file:read("*n")
    if not size then break end
    file:read(1)
    requests[#requests + 1] = file:read(size)
  end
  file:close()
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary)
  local errors = summary.errors
  io.write(string.format(
    '{"replies": %d, "errors": %d, "seconds": %f, "cpu_s": %f}\n',
    summary.requests,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    summary.duration / 1e6,
    os.clock()
  ))
end
