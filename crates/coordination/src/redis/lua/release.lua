-- Gives up whatever the id has: ownership goes to the first who still waits, a place in the queue is
-- struck out. Sent again it changes nothing.
-- Answers {1}: handed over; {2}: owned, and nobody waits; {3}: left the queue; {0}: had nothing
local holder, token = owner()
if holder == id then
  if hand_over(token) then return {1} end
  redis.call('DEL', KEYS[1])
  return {2}
end
if redis.call('HDEL', KEYS[3], id) == 0 then return {0} end
local waiting = redis.call('HLEN', KEYS[3])
if waiting == 0 then
  redis.call('DEL', KEYS[2])
  if holder then tell(holder, 'waiting %s 0') end
elseif redis.call('LLEN', KEYS[2]) > 2 * waiting + 8 then
  -- Those who left outnumber those who wait: write the queue anew, or a key held for long collects them.
  local queue = redis.call('LRANGE', KEYS[2], 0, -1)
  redis.call('DEL', KEYS[2])
  for _, whom in ipairs(queue) do
    local deadline = redis.call('HGET', KEYS[3], whom)
    if deadline and tonumber(deadline) > now_ms then
      redis.call('RPUSH', KEYS[2], whom)
    elseif deadline then
      redis.call('HDEL', KEYS[3], whom)
    end
  end
  keep_for(KEYS[2], patience)
end
if not holder then hand_over(0) end
return {3}
