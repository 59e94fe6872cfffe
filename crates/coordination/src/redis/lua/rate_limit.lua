-- One attempt under a rule. See `Limiter` for the meaning of the result.
-- KEYS[1] ring: the admissions in the window, oldest first, each 8 bytes of big-endian microseconds
-- ARGV    limit; window in microseconds
-- Returns {allowed, remaining, microseconds until a permit is available again, 1 if the stored value was
-- corrupt}
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

local ring, corrupt = redis.pcall('GET', KEYS[1]), 0
if type(ring) == 'table' then -- an error: the value has another type
  redis.call('DEL', KEYS[1])
  ring, corrupt = '', 1
elseif not ring then
  ring = ''
end
local function at(index)
  return (struct.unpack('>I8', ring, index * 8 - 7))
end
local count = #ring / 8
if count % 1 ~= 0 or (count > 0 and at(1) > at(count)) then
  ring, count, corrupt = '', 0, 1
end
if count > limit then -- written under a higher limit; only the newest admissions count
  ring, count = string.sub(ring, -8 * limit), limit
end

local newest = count > 0 and at(count) or 0
if newest > clock + window then -- the clock has stepped back by more than a window
  ring, count, newest = '', 0, 0
end
local now = math.max(clock, newest)

-- Binary search for the first admission that is still in the window.
local first, beyond = 1, count + 1
while first < beyond do
  local middle = math.floor((first + beyond) / 2)
  if at(middle) > now - window then beyond = middle else first = middle + 1 end
end

local used = count - first + 1
if used >= limit then -- refused; nothing is written
  return {0, 0, at(first) + window - clock, corrupt}
end
ring = string.sub(ring, first * 8 - 7) .. struct.pack('>I8', now)
-- One to two milliseconds late: the key must not expire while an admission still counts.
redis.call('SET', KEYS[1], ring, 'PXAT', string.format('%.0f', math.ceil((now + window) / 1000) + 1))
return {1, limit - used - 1, at(1) + window - clock, corrupt}
