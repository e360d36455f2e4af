-- Refuses a request with a whole answer: the body is read to its end and dropped first. HAProxy's own deny closes the
-- connection while the client is still sending, and the reset that follows can destroy the answer before it is read.

local folder = os.getenv("KNEEOA_FILES")
local headers = { ["401"] = { "WWW-Authenticate", 'Basic realm="kneeoa"' }, ["503"] = { "Retry-After", "5" } }
headers["busy"] = headers["503"]

local function body_of(name)
    local file = assert(io.open(folder .. "/" .. name .. ".json", "rb"))
    local text = file:read("a")
    file:close()
    return text
end

local bodies = {}
for _, name in ipairs({ "400", "401", "404", "405", "413", "415", "431", "503", "busy" }) do
    bodies[name] = body_of(name)
end

core.register_service("refuse", "http", function(applet)
    local name = applet.headers["x-refuse"][0]
    local patience = core.now().sec + 20 -- for a client that sends drop by drop
    while #(applet:receive(65536) or "") > 0 and core.now().sec < patience do
    end
    applet:set_status(tonumber(name) or 503)
    applet:add_header("Content-Type", "application/json")
    applet:add_header("Content-Length", tostring(#bodies[name]))
    if headers[name] then
        applet:add_header(headers[name][1], headers[name][2])
    end
    applet:start_response()
    applet:send(bodies[name])
end)
