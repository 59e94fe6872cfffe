-- Releases the caller's ownership, which goes to the first waiter, or its queue position. A retry changes
-- nothing.
-- Returns {1}: handed over; {2}: released, nobody waits; {3}: left the queue; {0}: had neither
local owner, token = read_owner()
if owner == id then
  if hand_over(token) then return {1} end
  redis.call('DEL', KEYS[1])
  return {2}
end
if redis.call('HDEL', KEYS[3], id) == 0 then return {0} end
local waiting = redis.call('HLEN', KEYS[3])
if waiting == 0 then
  redis.call('DEL', KEYS[2])
  -- The last waiter has left.
  if owner then notify(owner, 'waiting %s 0') end
elseif redis.call('LLEN', KEYS[2]) > 2 * waiting + 8 then
  -- Most entries belong to waiters that have left. The queue is rewritten without them, because it would grow
  -- for as long as the key stays owned.
  local queue = redis.call('LRANGE', KEYS[2], 0, -1)
  redis.call('DEL', KEYS[2])
  for _, waiter in ipairs(queue) do
    local deadline = redis.call('HGET', KEYS[3], waiter)
    if deadline and tonumber(deadline) > now_ms then
      redis.call('RPUSH', KEYS[2], waiter)
    elseif deadline then
      redis.call('HDEL', KEYS[3], waiter)
    end
  end
  extend_ttl(KEYS[2], waiter_lease)
end
if not owner then hand_over(0) end
return {3}
