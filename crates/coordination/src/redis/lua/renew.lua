-- Renews the caller's lease or queue position, and reports it. It never restores a lost one; but if the
-- owner's lease has expired, it hands the key over to the first waiter.
-- Returns {1, token, waiting, now}: owned; {2, 0, milliseconds of the owner's lease, now}: queued;
--         {0}: neither
-- The second number of {2, …} is the position in the reply of acquire.lua. A renewal does not report it.
local owner, token = read_owner()
if owner == id then
  redis.call('PEXPIRE', KEYS[1], lease)
  return {1, token, redis.call('HLEN', KEYS[3]), now}
end
if redis.call('HEXISTS', KEYS[3], id) == 0 then return {0} end
refresh_waiter()
if not owner then
  owner, token = hand_over(0)
  if owner == id then
    redis.call('PEXPIRE', KEYS[1], lease)
    return {1, token, redis.call('HLEN', KEYS[3]), now}
  end
end
return {2, 0, lease_left(), now}
