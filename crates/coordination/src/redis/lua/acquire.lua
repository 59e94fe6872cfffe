-- Takes the key or joins its queue, atomically. A retry with the same id only renews.
-- ARGV[6] longest queue; ARGV[7] 1 to join the queue, 0 to fail if the key is taken
-- Returns {1, token, waiting, now}: owned; {2, position, milliseconds of the owner's lease, now}: queued;
--         {3, position}: taken; {4, position}: the queue is full
local owner, token = read_owner()
if not owner then owner, token = hand_over(0) end
if not owner then return {1, set_owner(id, 0, lease), 0, now} end
local waiting = redis.call('HLEN', KEYS[3])
if owner == id then
  redis.call('PEXPIRE', KEYS[1], lease)
  return {1, token, waiting, now}
end
if redis.call('HEXISTS', KEYS[3], id) == 1 then
  refresh_waiter()
  return {2, waiting, lease_left(), now}
end
if waiting >= tonumber(ARGV[6]) then return {4, waiting + 1} end
if ARGV[7] == '0' then return {3, waiting + 1} end
redis.call('RPUSH', KEYS[2], id)
refresh_waiter()
-- Only the first waiter is published: the owner needs to know only that there is one.
if waiting == 0 then notify(owner, 'waiting %s 1') end
return {2, waiting + 1, lease_left(), now}
