-- Owns the key, or stands in its queue, in one step. Sent again with the same id it changes nothing but the lease.
-- ARGV[6] longest queue; ARGV[7] 1 to queue, 0 to ask only
-- Answers {1, token, waiting, now}: owned; {2, place, milliseconds of the owner's lease, now}: queued;
--         {3, place}: taken; {4, place}: the queue is full
local holder, token = owner()
if not holder then holder, token = hand_over(0) end
if not holder then return {1, own(id, 0, lease), 0, now} end
local waiting = redis.call('HLEN', KEYS[3])
if holder == id then
  redis.call('PEXPIRE', KEYS[1], lease)
  return {1, token, waiting, now}
end
if redis.call('HEXISTS', KEYS[3], id) == 1 then
  wait_on()
  return {2, waiting, lease_left(), now}
end
if waiting >= tonumber(ARGV[6]) then return {4, waiting + 1} end
if ARGV[7] == '0' then return {3, waiting + 1} end
redis.call('RPUSH', KEYS[2], id)
wait_on()
if waiting == 0 then tell(holder, 'waiting %s 1') end
return {2, waiting + 1, lease_left(), now}
