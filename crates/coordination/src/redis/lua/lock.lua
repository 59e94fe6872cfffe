-- Common part of the lock's scripts. It is prepended to each of them.
-- KEYS[1] owner: "id:token"; its TTL is the lease
-- KEYS[2] queue: ids in order of arrival; an id without a deadline in KEYS[3] has left
-- KEYS[3] waiters: id -> time in milliseconds until which it counts as waiting
-- ARGV    id; lease, claim (the short lease after a hand-over) and lease of a waiter (milliseconds);
--         prefix of channels
local id, lease, claim, waiter_lease, channels = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)

-- Returns the owner's id and token, or nothing if the key is free or its value is corrupt.
local function read_owner()
  local value = redis.call('GET', KEYS[1])
  local owner, token = string.match(value or '', '^(.+):(%d+)$')
  token = tonumber(token)
  if token and token < 9007199254740992 then return owner, token end
end

-- Publishes a message to the instance of an id. `format` contains %s for the caller's number.
local function notify(receiver, format)
  local instance, number = string.match(receiver, '^(.*)%.(%d+)$')
  if instance then redis.call('PUBLISH', channels .. instance, string.format(format, number)) end
end

-- Makes an id the owner, with a token above `previous`; returns the token.
local function set_owner(new_owner, previous, milliseconds)
  local token = math.max(previous + 1, now)
  redis.call('SET', KEYS[1], new_owner .. ':' .. string.format('%.0f', token), 'PX', milliseconds)
  return token
end

-- Hands the key over to the first waiter whose deadline has not passed. Returns its id and token, or nothing.
local function hand_over(previous)
  local waiter = redis.call('LPOP', KEYS[2])
  while waiter do
    local deadline = redis.call('HGET', KEYS[3], waiter)
    if deadline then
      redis.call('HDEL', KEYS[3], waiter)
      if tonumber(deadline) > now_ms then
        local token = set_owner(waiter, previous, claim)
        local waiting = redis.call('HLEN', KEYS[3])
        if waiting == 0 then redis.call('DEL', KEYS[2]) end
        notify(waiter, string.format('grant %%s %.0f %d %.0f %s', token, waiting, now, KEYS[1]))
        return waiter, token
      end
    end
    waiter = redis.call('LPOP', KEYS[2])
  end
end

-- Raises a key's TTL to at least so many milliseconds.
local function extend_ttl(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then redis.call('PEXPIRE', key, milliseconds) end
end

-- Records that the caller waits, for one more waiter lease from now.
local function refresh_waiter()
  redis.call('HSET', KEYS[3], id, string.format('%.0f', now_ms + waiter_lease))
  extend_ttl(KEYS[2], waiter_lease)
  extend_ttl(KEYS[3], waiter_lease)
end

-- Milliseconds until the owner's lease expires. The scripts never write an owner without a TTL; a foreign
-- value without one gets a lease here.
local function lease_left()
  local left = redis.call('PTTL', KEYS[1])
  if left == -1 then redis.call('PEXPIRE', KEYS[1], lease) end
  return left
end
