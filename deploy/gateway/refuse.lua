-- Refuses a request with a whole answer: the body is read to its end and dropped first. HAProxy's own deny closes the
-- connection while the client is still sending, and the reset that follows can destroy the answer before it is read.

local folder = os.getenv("KNEEOA_FILES")
local headers = { [401] = { "WWW-Authenticate", 'Basic realm="kneeoa"' }, [503] = { "Retry-After", "5" } }

local function body_of(status)
    local file = assert(io.open(folder .. "/" .. status .. ".json", "rb"))
    local text = file:read("a")
    file:close()
    return text
end

local bodies = {}
for _, status in ipairs({ 400, 401, 404, 405, 413, 415, 503 }) do
    bodies[status] = body_of(status)
end

core.register_service("refuse", "http", function(applet)
    local status = tonumber(applet.headers["x-refuse"][0])
    local patience = core.now().sec + 20 -- for a client that sends drop by drop
    while #(applet:receive(65536) or "") > 0 and core.now().sec < patience do
    end
    applet:set_status(status)
    applet:add_header("Content-Type", "application/json")
    applet:add_header("Content-Length", tostring(#bodies[status]))
    if headers[status] then
        applet:add_header(headers[status][1], headers[status][2])
    end
    applet:start_response()
    applet:send(bodies[status])
end)
