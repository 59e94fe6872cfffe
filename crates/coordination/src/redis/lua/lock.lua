-- What the scripts of the lock have in common; each is appended to this.
-- KEYS[1] owner: "id:token", with the lease as its expiry
-- KEYS[2] queue: ids in the order in which they came; those without a deadline have left
-- KEYS[3] waiters: id -> deadline, in milliseconds, until which it counts as waiting
-- ARGV    id, lease, claim lease, lease of a waiter (milliseconds), prefix of channels
local id, lease, claim, patience, channels = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)

local function owner()
  local value = redis.call('GET', KEYS[1])
  local holder, token = string.match(value or '', '^(.+):(%d+)$')
  token = tonumber(token)
  if token and token < 9007199254740992 then return holder, token end
end

local function tell(whom, what)
  local instance, number = string.match(whom, '^(.*)%.(%d+)$')
  if instance then redis.call('PUBLISH', channels .. instance, string.format(what, number)) end
end

local function own(whom, previous, milliseconds)
  local token = math.max(previous + 1, now)
  redis.call('SET', KEYS[1], whom .. ':' .. string.format('%.0f', token), 'PX', milliseconds)
  return token
end

-- Gives the key to the first who still waits, if there is one.
local function hand_over(previous)
  local whom = redis.call('LPOP', KEYS[2])
  while whom do
    local deadline = redis.call('HGET', KEYS[3], whom)
    if deadline then
      redis.call('HDEL', KEYS[3], whom)
      if tonumber(deadline) > now_ms then
        local token = own(whom, previous, claim)
        local waiting = redis.call('HLEN', KEYS[3])
        if waiting == 0 then redis.call('DEL', KEYS[2]) end
        tell(whom, string.format('grant %%s %.0f %d %.0f %s', token, waiting, now, KEYS[1]))
        return whom, token
      end
    end
    whom = redis.call('LPOP', KEYS[2])
  end
end

local function keep_for(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then redis.call('PEXPIRE', key, milliseconds) end
end

-- Notes that the id waits, for as long as a waiter's lease.
local function wait_on()
  redis.call('HSET', KEYS[3], id, string.format('%.0f', now_ms + patience))
  keep_for(KEYS[2], patience)
  keep_for(KEYS[3], patience)
end

-- Milliseconds until the owner's lease is over. No script writes an owner without one.
local function lease_left()
  local left = redis.call('PTTL', KEYS[1])
  if left == -1 then redis.call('PEXPIRE', KEYS[1], lease) end
  return left
end
